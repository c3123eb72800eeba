import ContentStore
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import SwiftProtobuf
import Synchronization

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Writes one piece of content into containerd: an ingest under a lease, verified on both sides, then committed.
final class ContainerdContentWriter: ContentWriter {
    /// The largest payload of a message in bytes; containerd accepts 16 MiB.
    private static let messageSize = 1 << 20
    /// The seconds after which containerd deletes the lease, if this process did not.
    private static let leaseLifetime = 24 * 60 * 60

    fileprivate struct Progress: ~Copyable {
        var offset: Int64 = 0
        var hasher: DigestHasher?
        var isOpen = true
        /// The bytes so far, as long as they may be a manifest, whose references become labels.
        var manifest: ByteBuffer? = ByteBuffer()
    }

    private let digest: Digest
    private let size: Int64?
    private let reference: String
    private let lease: String
    private let session: ContainerdSession
    private let permit: Mutex<WriterLimit.Permit?>
    private let stream: IngestStream
    private let progress: Mutex<Progress>

    private init(
        digest: Digest, size: Int64?, reference: String, lease: String, session: ContainerdSession,
        permit: WriterLimit.Permit
    ) {
        self.digest = digest
        self.size = size
        self.reference = reference
        self.lease = lease
        self.session = session
        self.permit = Mutex(permit)
        self.stream = IngestStream(client: session.client, lease: lease)
        self.progress = Mutex(Progress(hasher: DigestHasher(digest.algorithm)))
    }

    /// Creates the lease and the ingest.
    static func begin(
        _ digest: Digest, size: Int64?, session: ContainerdSession, permit: WriterLimit.Permit
    ) async throws -> ContainerdContentWriter {
        let unique = String(UInt64.random(in: .min ... .max), radix: 36)
        let lease = "spegel-\(unique)"
        try await session.client.createLease(lease, expiry: timestamp(secondsFromNow: leaseLifetime))
        let writer = ContainerdContentWriter(
            digest: digest, size: size, reference: "spegel-\(digest)-\(unique)", lease: lease, session: session,
            permit: permit)
        do {
            // The expected digest is sent with the commit only: containerd would otherwise refuse an ingest of content
            // that it has, or adopt that of another namespace.
            _ = try await writer.stream.send(
                .with {
                    $0.action = .stat
                    $0.ref = writer.reference
                    // Kept beside the ingest, so that it can be served while it grows.
                    $0.total = size ?? 0
                })
            return writer
        } catch {
            await writer.abort()
            throw error
        }
    }

    deinit {
        guard progress.withLock({ $0.isOpen }) else { return }
        let (stream, session, reference, lease) = (stream, session, reference, lease)
        Task { await Self.discard(stream, session, reference, lease) }
    }

    var offset: Int64 { progress.withLock { $0.offset } }

    func append(_ bytes: ByteBuffer) async throws {
        var bytes = bytes
        let start = try progress.withLock { progress in
            guard progress.isOpen else { throw ContentStoreError.writerClosed }
            let (total, overflow) = progress.offset.addingReportingOverflow(Int64(bytes.readableBytes))
            if let size, overflow || total > size {
                throw ContentStoreError.sizeMismatch(digest, expected: size, actual: total)
            }
            bytes.withUnsafeReadableBytes { progress.hasher?.update($0) }
            progress.keep(bytes)
            return progress.offset
        }
        var position = start
        while let part = bytes.readSlice(length: min(bytes.readableBytes, Self.messageSize)), part.readableBytes > 0 {
            let at = position
            let response = try await asStoreError {
                try await stream.send(
                    .with {
                        $0.action = .write
                        $0.offset = at
                        $0.data = .init(part.readableBytesView)
                    })
            }
            position += Int64(part.readableBytes)
            guard let response, response.offset == position else {
                throw ContentStoreError.unavailable(
                    "containerd accepted \(response?.offset ?? 0) bytes of \(digest) instead of \(position)")
            }
            progress.withLock { $0.offset = position }
        }
    }

    func commit() async throws -> ContentInfo {
        let (length, actual, labels) = try progress.withLock { progress in
            guard progress.isOpen, let hasher = progress.hasher.take() else { throw ContentStoreError.writerClosed }
            var labels = progress.labels
            labels["containerd.io/gc.root"] = Self.timestamp(secondsFromNow: 0)
            return (progress.offset, hasher.finalize(), labels)
        }
        do {
            if let size, length != size {
                throw ContentStoreError.sizeMismatch(digest, expected: size, actual: length)
            }
            guard actual == digest else { throw ContentStoreError.digestMismatch(expected: digest, actual: actual) }
            let response = try await stream.send(
                .with {
                    $0.action = .commit
                    $0.offset = length
                    $0.total = length
                    $0.expected = digest.description
                    $0.labels = labels
                })
            // No response means that it exists already, which suffices once it has our labels; garbage collection may remove
            // it before, and then it must be written again.
            if response == nil, try await !session.client.label(digest, with: labels) {
                throw ContentStoreError.absent(digest)
            }
            try await session.refresh(contents: [digest])
        } catch {
            await abort()
            throw error
        }
        await close(discarding: false)
        if let info = session.state.read({ $0.index.info(digest) }) { return info }
        // Another client has just removed it.
        throw ContentStoreError.absent(digest)
    }

    func abort() async { await close(discarding: true) }

    private func close(discarding: Bool) async {
        let wasOpen = progress.withLock { progress in
            defer {
                progress.isOpen = false
                progress.manifest = nil
            }
            return progress.isOpen
        }
        guard wasOpen else { return }
        let (stream, session, reference, lease) = (stream, session, reference, lease)
        // In a task of its own: a cancelled task makes no calls, and lease and ingest would stay.
        await Task {
            if discarding {
                await Self.discard(stream, session, reference, lease)
            } else {
                await stream.cancel()
                try? await session.client.deleteLease(lease)
            }
        }.value
        permit.withLock { $0 = nil }
    }

    /// Aborts the ingest. If containerd cannot be reached, the expiry of the lease does.
    private static func discard(
        _ stream: IngestStream, _ session: ContainerdSession, _ reference: String, _ lease: String
    ) async {
        await stream.cancel()
        try? await session.client.abortIngest(reference)
        try? await session.client.deleteLease(lease)
    }

    /// A time in RFC 3339, the format of containerd's labels.
    static func timestamp(secondsFromNow seconds: Int) -> String {
        var time = time(nil) + seconds
        var parts = tm()
        gmtime_r(&time, &parts)
        var text = [CChar](repeating: 0, count: 32)
        let length = strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
        return String(decoding: text.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension ContainerdContentWriter.Progress {
    /// Keeps bytes that may belong to a manifest.
    fileprivate mutating func keep(_ bytes: ByteBuffer) {
        guard var kept = manifest.take() else { return }
        kept.writeImmutableBuffer(bytes)
        let first = kept.readableBytesView.first { $0 != 0x20 && $0 != 0x0a && $0 != 0x0d && $0 != 0x09 }
        if first == UInt8(ascii: "{"), kept.readableBytes <= ManifestSummary.sizeLimit { manifest = kept }
    }

    /// The labels from which containerd's garbage collection knows a manifest's references.
    fileprivate var labels: [String: String] {
        guard let manifest, let summary = ManifestSummary(Array(manifest.readableBytesView)) else { return [:] }
        var labels: [String: String] = [:]
        for (index, child) in summary.references.enumerated() {
            labels["containerd.io/gc.ref.content.\(index)"] = child.digest.description
        }
        return labels
    }
}

/// Limits the number of concurrent writers.
final class WriterLimit: Sendable {
    /// The permit of one writer, returned when it is released.
    final class Permit: Sendable {
        private let limit: WriterLimit

        fileprivate init(limit: WriterLimit) { self.limit = limit }

        deinit { limit.count.withLockedValue { $0 -= 1 } }
    }

    private let limit: Int
    private let count = NIOLockedValueBox(0)

    init(limit: Int) { self.limit = max(1, limit) }

    func acquire() throws(ContentStoreError) -> Permit {
        let granted = count.withLockedValue { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
        guard granted else { throw .tooManyWriters(limit: limit) }
        return Permit(limit: self)
    }
}
