import ContentStore
import Foundation
import NIOCore
import TestSupport
import Testing

@Suite struct ContentFileTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func file(_ bytes: [UInt8]) throws -> ContentFile {
        let path = "\(directory.path)/file"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return ContentFile(takingOwnershipOf: open(path, O_RDONLY), size: Int64(bytes.count))
    }

    @Test func readsGiveWhatThereIs() throws {
        let file = try file(Array(0..<100))
        #expect(Array(try file.read(at: 10, count: 5).readableBytesView) == [10, 11, 12, 13, 14])
        #expect(try file.read(at: 95, count: 50).readableBytes == 5)
        #expect(try file.read(at: 100, count: 50).readableBytes == 0)
        #expect(try file.read(at: 0, count: 0).readableBytes == 0)
        #expect(throws: ContentStoreError.self) { try file.read(at: -1, count: 1) }
    }

    @Test func regionsStayWithinTheFile() throws {
        let file = try file(Array(0..<100))
        let region = file.fileRegion(20..<500)
        #expect(region.readerIndex == 20)
        #expect(region.endIndex == 100)
        #expect(file.fileRegion(0..<100).readableBytes == 100)
        #expect(file.fileRegion(100..<100).readableBytes == 0)
    }

    @Test func aDirectoryCannotBeRead() throws {
        let file = ContentFile(takingOwnershipOf: open(directory.path, O_RDONLY), size: 10)
        #expect(throws: ContentStoreError.io("read of a content file", errno: EISDIR)) {
            try file.read(at: 0, count: 1)
        }
    }
}
