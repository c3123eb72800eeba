import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A writer into an image layout. Hashes while writing, off the event loops.
final class OnDiskContentWriter: ContentWriter {
    /// The state that the file threads use, one call after the other.
    private final class Work: @unchecked Sendable {
        let digest: Digest
        let size: Int64?
        var file: IngestFile?
        var hasher: DigestHasher?
        var offset: Int64 = 0

        init(digest: Digest, size: Int64?, file: IngestFile) {
            self.digest = digest
            self.size = size
            self.file = file
            hasher = DigestHasher(digest.algorithm)
        }

        func append(_ bytes: ByteBuffer) throws -> Int64 {
            guard let file, hasher != nil else { throw ContentStoreError.writerClosed }
            let (total, overflow) = offset.addingReportingOverflow(Int64(bytes.readableBytes))
            if overflow || total > (size ?? .max) {
                throw ContentStoreError.sizeMismatch(digest, expected: size ?? .max, actual: total)
            }
            try bytes.withUnsafeReadableBytes { buffer in
                try file.append(buffer)
                hasher?.update(buffer)
            }
            offset = total
            return total
        }

        /// Verifies size and digest and returns the file.
        func finish() throws -> IngestFile {
            guard let file, let hasher = hasher.take() else { throw ContentStoreError.writerClosed }
            self.file = nil
            if let size, offset != size {
                throw ContentStoreError.sizeMismatch(digest, expected: size, actual: offset)
            }
            let actual = hasher.finalize()
            guard actual == digest else { throw ContentStoreError.digestMismatch(expected: digest, actual: actual) }
            return file
        }

        func discard() {
            file = nil
            _ = hasher.take()
        }
    }

    private enum Phase {
        case open, busy, closed
    }

    /// The file of a writer, open for another reader.
    private struct Arriving: ArrivingSource {
        let file: ContentFile
        let progress: NIOLockedValueBox<(offset: Int64, phase: Phase, isCommitted: Bool)>

        var status: ArrivingContent.Status {
            let (offset, phase, isCommitted) = progress.withLockedValue { $0 }
            // The last append of a writer that is being committed has ended.
            if isCommitted || offset >= file.size { return phase == .closed && !isCommitted ? .failed : .complete }
            return phase == .closed ? .failed : .arriving(bytes: offset)
        }

        func read(at offset: Int64, count: Int) throws -> ByteBuffer { try file.read(at: offset, count: count) }
    }

    private let tracker: LayoutTracker
    private let permit: WriterPermit
    private let digest: Digest
    private let size: Int64?
    private let work: Work
    private let file: IngestFile.Place
    private let onEnd: @Sendable (ObjectIdentifier) -> Void
    private let progress = NIOLockedValueBox<(offset: Int64, phase: Phase, isCommitted: Bool)>((0, .open, false))

    /// - Parameter onEnd: called when the writer is closed, or released.
    init(
        tracker: LayoutTracker, permit: WriterPermit, digest: Digest, size: Int64?, file: IngestFile,
        onEnd: @escaping @Sendable (ObjectIdentifier) -> Void
    ) {
        self.tracker = tracker
        self.permit = permit
        self.digest = digest
        self.size = size
        self.file = file.place
        self.onEnd = onEnd
        work = Work(digest: digest, size: size, file: file)
    }

    deinit { onEnd(ObjectIdentifier(self)) }

    /// Opens what has been written of content of known size; nil when the writer has ended. Blocks.
    ///
    /// - Throws: ``ContentStoreError``.
    func openArriving() throws(ContentStoreError) -> ArrivingContent? {
        guard let size, progress.withLockedValue({ $0.phase != .closed }), let open = try file.open() else {
            return nil
        }
        let content = ContentFile(takingOwnershipOf: open.takeDescriptor(), size: size)
        return ArrivingContent(digest: digest, size: size, source: Arriving(file: content, progress: progress))
    }

    var offset: Int64 { progress.withLockedValue { $0.offset } }

    func append(_ bytes: ByteBuffer) async throws {
        try begin()
        do {
            let total = try await FileWork.run { [work] in try work.append(bytes) }
            end(offset: total)
        } catch {
            end()
            throw error
        }
    }

    func commit() async throws -> ContentInfo {
        try begin()
        do {
            let info = try await publish()
            close(isCommitted: true)
            return info
        } catch {
            _ = try? await FileWork.run { [work] in work.discard() }
            close()
            throw error
        }
    }

    private func publish() async throws -> ContentInfo {
        let root = try await tracker.writableRoot()
        let identity = try await FileWork.run { [work, digest] in
            let file = try work.finish()
            let blobs = try root.directory.makeDirectory(LayoutRoot.blobsName)
            let target = try blobs.makeDirectory(digest.algorithm.rawValue)
            return try file.publish(as: digest.hex, in: target)
        }
        // Content that another process removed right away was committed as well.
        return try await tracker.update(digest, .published(identity))
            ?? ContentInfo(digest: digest, size: identity.size, mediaType: .octetStream)
    }

    func abort() async {
        do { try begin() } catch { return }
        _ = try? await FileWork.run { [work] in work.discard() }
        close()
    }

    /// A second call during another would interleave their bytes: it is refused as if the writer were closed.
    private func begin() throws {
        try progress.withLockedValue { progress in
            guard progress.phase == .open else { throw ContentStoreError.writerClosed }
            progress.phase = .busy
        }
    }

    private func end(offset: Int64? = nil) {
        progress.withLockedValue { progress in
            if let offset { progress.offset = offset }
            progress.phase = .open
        }
    }

    private func close(isCommitted: Bool = false) {
        progress.withLockedValue {
            $0.phase = .closed
            $0.isCommitted = isCommitted
        }
        permit.release()
        onEnd(ObjectIdentifier(self))
    }
}

/// A permit of a bounded number of writers, returned when it is released at the latest.
final class WriterPermit: Sendable {
    private let count: NIOLockedValueBox<Int>
    private let isHeld = NIOLockedValueBox(true)

    private init(count: NIOLockedValueBox<Int>) { self.count = count }

    deinit { release() }

    static func take(from count: NIOLockedValueBox<Int>, limit: Int) throws(ContentStoreError) -> WriterPermit {
        let isFree = count.withLockedValue { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
        guard isFree else { throw .tooManyWriters(limit: limit) }
        return WriterPermit(count: count)
    }

    func release() {
        let wasHeld = isHeld.withLockedValue { held in
            defer { held = false }
            return held
        }
        if wasHeld { count.withLockedValue { $0 -= 1 } }
    }
}

/// A file being written in the layout's private directory, which becomes visible under another name when it is complete.
///
/// The writer holds an advisory lock on it, which ends with the process in any case: a file without a lock is abandoned.
/// Removed when released, unless it was published. Its methods block.
final class IngestFile: @unchecked Sendable {
    // Used by one thread at a time, as a writer's methods are called one after the other.
    private let directory: Directory
    private let name: String

    /// Where the file is while it is being written.
    struct Place: Sendable {
        fileprivate let directory: Directory
        fileprivate let name: String

        /// Opens the file once more, for reading; nil when it has been published or removed.
        func open() throws(ContentStoreError) -> OpenFile? { try directory.openFile(name) }
    }

    var place: Place { Place(directory: directory, name: name) }
    /// Open for writing until the file is published, so that a watcher sees it closed before it gets its name.
    private var writing: OpenFile?
    /// Open for reading; holds the lock.
    private let lock: OpenFile
    private var length: Int64 = 0
    private var isPublished = false

    private init(directory: Directory, name: String, writing: consuming OpenFile, lock: consuming OpenFile) {
        self.directory = directory
        self.name = name
        self.writing = consume writing
        self.lock = lock
    }

    deinit {
        if !isPublished { try? directory.unlink(name) }
    }

    /// Makes an empty file with a name of its own.
    static func create(in directory: Directory) throws(ContentStoreError) -> IngestFile {
        // A process that opens the layout may take the file for an abandoned one before it is locked.
        for _ in 0..<100 {
            let name = String(UInt64.random(in: .min ... .max), radix: 36)
            let file: OpenFile
            do throws(ContentStoreError) {
                file = try directory.openForWriting(name, exclusively: true)
            } catch .io(_, let number) where number == EEXIST {
                continue
            }
            guard let lock = try directory.openFile(name), try lock.tryLock(), try lock.status().linkCount == 1 else {
                continue
            }
            return IngestFile(directory: directory, name: name, writing: file, lock: lock)
        }
        throw .unavailable("no file could be made in \(directory.path)")
    }

    /// Removes files without a writer.
    ///
    /// - Returns: how many.
    static func removeAbandoned(in directory: Directory) throws(ContentStoreError) -> Int {
        var count = 0
        for name in try directory.entries() {
            guard let file = try? directory.openFile(name), (try? file.tryLock()) == true else { continue }
            try directory.unlink(name)
            count += 1
        }
        return count
    }

    func append(_ bytes: [UInt8]) throws(ContentStoreError) {
        let result = bytes.withUnsafeBytes { buffer -> Result<Void, ContentStoreError> in
            do throws(ContentStoreError) { return .success(try append(buffer)) } catch { return .failure(error) }
        }
        try result.get()
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(ContentStoreError) {
        guard writing != nil else { throw .writerClosed }
        try writing?.write(bytes, at: length)
        length += Int64(bytes.count)
    }

    /// Makes the bytes durable; none can be appended then.
    func finishWriting() throws(ContentStoreError) {
        try writing?.sync()
        writing = nil
    }

    /// Makes the file durable and then visible under another name, replacing what had it.
    ///
    /// - Returns: the state of the file as published.
    @discardableResult
    func publish(as newName: String, in target: Directory) throws(ContentStoreError) -> FileIdentity {
        try finishWriting()
        let identity = try lock.status().identity
        try target.rename(name, in: directory, to: newName)
        isPublished = true
        try target.sync()
        return identity
    }

    /// Makes the file durable and then visible under another name, unless that is taken.
    func publishIfMissing(as newName: String, in target: Directory) throws(ContentStoreError) {
        try finishWriting()
        guard retrying({ linkat(directory.descriptor, name, target.descriptor, newName, 0) }) == 0 else {
            if errno == EEXIST { return }
            throw ContentStoreError(errno: errno, "making of \(target.path)/\(newName)")
        }
        try target.sync()
    }
}
