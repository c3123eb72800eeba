import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

/// A writer that gathers bytes in memory.
final class InMemoryContentWriter: ContentWriter {
    private struct Progress {
        var bytes = ByteBuffer()
        var isOpen = true
    }

    private let store: InMemoryContentStore
    private let digest: Digest
    private let size: Int64?
    private let progress = NIOLockedValueBox(Progress())

    init(store: InMemoryContentStore, digest: Digest, size: Int64?) {
        self.store = store
        self.digest = digest
        self.size = size
    }

    deinit { close() }

    var offset: Int64 { progress.withLockedValue { Int64($0.bytes.readableBytes) } }

    func append(_ bytes: ByteBuffer) async throws {
        try progress.withLockedValue { progress in
            guard progress.isOpen else { throw ContentStoreError.writerClosed }
            let (total, overflow) = Int64(progress.bytes.readableBytes)
                .addingReportingOverflow(Int64(bytes.readableBytes))
            if let size, overflow || total > size {
                throw ContentStoreError.sizeMismatch(digest, expected: size, actual: total)
            }
            try store.state.withLockedValue { state in
                guard Int64(bytes.readableBytes) <= store.capacity - state.index.contentBytes - state.pendingBytes
                else { throw store.outOfSpace }
                state.pendingBytes += Int64(bytes.readableBytes)
            }
            progress.bytes.writeImmutableBuffer(bytes)
        }
    }

    func commit() async throws -> ContentInfo {
        let bytes = try progress.withLockedValue { progress in
            guard progress.isOpen else { throw ContentStoreError.writerClosed }
            return progress.bytes
        }
        defer { close() }
        let length = Int64(bytes.readableBytes)
        if let size, length != size {
            throw ContentStoreError.sizeMismatch(digest, expected: size, actual: length)
        }
        let actual = bytes.withUnsafeReadableBytes { Digest.hash(digest.algorithm, of: $0) }
        guard actual == digest else { throw ContentStoreError.digestMismatch(expected: digest, actual: actual) }
        return try store.insert(bytes, as: digest, pending: length)
    }

    func abort() async { close() }

    private func close() {
        let length = progress.withLockedValue { progress -> Int64? in
            guard progress.isOpen else { return nil }
            progress.isOpen = false
            defer { progress.bytes = ByteBuffer() }
            return Int64(progress.bytes.readableBytes)
        }
        guard let length else { return }
        store.state.withLockedValue { state in
            state.writers -= 1
            state.pendingBytes -= length
        }
    }
}
