import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import TestSupport
import Testing

@Suite struct OpeningTests {
    private func error(_ body: () async throws -> OnDiskContentStore) async throws -> ContentStoreError {
        do {
            _ = try await body()
        } catch let error as ContentStoreError {
            return error
        }
        throw ConformanceFailure("it was opened")
    }

    @Test func whatIsNotALayoutIsRefused() async throws {
        let layout = try Layout()
        let path = layout.path
        let files = FileManager.default
        #expect(
            try await error { try await OnDiskContentStore.open(path: "\(path)/none") }
                == .notALayout(path: "\(path)/none", reason: "there is no such directory"))
        #expect(
            try await error { try await OnDiskContentStore.open(path: "\(path)/oci-layout") }
                == .notALayout(path: "\(path)/oci-layout", reason: "it is not a directory"))
        try layout.write(#"{"imageLayoutVersion":"2.0.0"}"#, to: "oci-layout")
        #expect(
            try await error { try await layout.open() } == .unsupportedLayoutVersion(path: path, version: "2.0.0"))
        for text in ["", "{", "[]", "{}", #"{"imageLayoutVersion":1}"#, String(repeating: " ", count: 5000)] {
            try layout.write(text, to: "oci-layout")
            #expect(
                try await error { try await layout.open() }
                    == .notALayout(path: path, reason: "oci-layout has no imageLayoutVersion"))
        }
        try files.removeItem(atPath: "\(path)/oci-layout")
        try files.createSymbolicLink(atPath: "\(path)/oci-layout", withDestinationPath: "/etc/passwd")
        #expect(
            try await error { try await layout.open() }
                == .notALayout(path: path, reason: "oci-layout is not a regular file"))
        try files.removeItem(atPath: "\(path)/oci-layout")
        #expect(
            try await error { try await layout.open() } == .notALayout(path: path, reason: "it has no oci-layout file"))
    }

    @Test func aBadIndexIsRefused() async throws {
        let layout = try Layout()
        let path = "\(layout.path)/index.json"
        let cases = [
            ("", "it is empty"), ("{", "it is not valid JSON"), ("[]", "it is not a JSON object"),
            (#"{"manifests":{}}"#, "manifests is not a list"),
            (#"{"a":"# + String(repeating: "[", count: 100_000), "it is not valid JSON"),
            (#"{"a":""# + String(repeating: " ", count: 4 << 20) + #""}"#, "a value has more than 4194304 bytes"),
        ]
        for (text, reason) in cases {
            try layout.write(text, to: "index.json")
            #expect(try await error { try await layout.open() } == .malformedIndex(path: path, reason: reason))
        }
        try #require(truncate(path, (512 << 20) + 1) == 0)
        #expect(
            try await error { try await layout.open() }
                == .malformedIndex(path: path, reason: "it has 536870913 bytes, more than the 536870912 that are read"))
        try FileManager.default.removeItem(atPath: path)
        #expect(
            try await error { try await layout.open() }
                == .notALayout(path: layout.path, reason: "it has no index.json"))
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "/etc/passwd")
        #expect(
            try await error { try await layout.open() }
                == .malformedIndex(path: path, reason: "it is not a regular file"))
    }

    @Test func aLayoutIsMadeWhereThereIsNone() async throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/deep/er/layout"
        var options = OnDiskContentStore.Options()
        options.createsIfMissing = true
        let store = try await OnDiskContentStore.open(path: path, options: options)
        let blob = SampleContent.Blob([1, 2, 3])
        try await store.write(.init(bytes: blob.bytes), as: blob.digest)
        // Once more changes nothing, and it is a layout for those who do not make one.
        let again = try await OnDiskContentStore.open(path: path, options: options)
        #expect(try await again.info(blob.digest) != nil)
        let plain = try await OnDiskContentStore.open(path: path)
        #expect(try await plain.info(blob.digest) != nil)
        let marker =
            try JSONSerialization.jsonObject(
                with: Data(contentsOf: URL(fileURLWithPath: "\(path)/oci-layout"))) as? [String: String]
        #expect(marker == ["imageLayoutVersion": "1.0.0"])
    }

    @Test func aDirectoryOfSomethingElseIsNotMadeALayout() async throws {
        let directory = try TemporaryDirectory()
        try Data("precious".utf8).write(to: URL(fileURLWithPath: "\(directory.path)/thesis.txt"))
        var options = OnDiskContentStore.Options()
        options.createsIfMissing = true
        let error = try await error { try await OnDiskContentStore.open(path: directory.path, options: options) }
        guard case .notALayout(_, let reason) = error else { throw error }
        #expect(reason.contains("thesis.txt"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["thesis.txt"])
    }

    @Test func aHalfMadeLayoutIsCompleted() async throws {
        for missing in [
            ["oci-layout"], ["oci-layout", "index.json"], ["oci-layout", "blobs"], ["index.json"], ["blobs"],
        ] {
            let layout = try Layout()
            for name in missing { try FileManager.default.removeItem(atPath: "\(layout.path)/\(name)") }
            let store = try await layout.open { $0.createsIfMissing = true }
            let blob = SampleContent.Blob([7])
            try await store.write(.init(bytes: blob.bytes), as: blob.digest)
            #expect(try await layout.open().info(blob.digest) != nil)
        }
    }

    @Test func severalMayMakeOneLayoutAtOnce() async throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/layout"
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<16 {
                group.addTask {
                    var options = OnDiskContentStore.Options()
                    options.createsIfMissing = true
                    options.lockTimeout = .seconds(300)
                    let store = try await OnDiskContentStore.open(path: path, options: options)
                    let manifest = SampleContent.Blob(Array(#"{"schemaVersion":2,"manifests":[],"n":\#(number)}"#.utf8))
                    try await store.write(.init(bytes: manifest.bytes), as: manifest.digest)
                    try await store.tag(
                        manifest.descriptor,
                        as: Reference(registry: "r.test", repository: "made", tag: "t\(number)"))
                }
            }
            try await group.waitForAll()
        }
        #expect(try await OnDiskContentStore.open(path: path).images().count == 16)
    }

    @Test func theLayoutItselfMayBeBehindALink() async throws {
        let layout = try Layout()
        let blob = SampleContent.Blob([1])
        try layout.put(blob)
        let link = "\(layout.path)-link"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: layout.path)
        #expect(try await OnDiskContentStore.open(path: link).info(blob.digest) != nil)
    }
}
