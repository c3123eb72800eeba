import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// An open file. Closed when released, unless its descriptor was taken.
struct OpenFile: ~Copyable, Sendable {
    private(set) var descriptor: CInt
    private let directoryPath: String
    private let name: String

    init(descriptor: CInt, directoryPath: String, name: String) {
        self.descriptor = descriptor
        self.directoryPath = directoryPath
        self.name = name
    }

    /// For messages only.
    var path: String { "\(directoryPath)/\(name)" }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// Gives the descriptor away; the caller closes it.
    consuming func takeDescriptor() -> CInt {
        let taken = descriptor
        descriptor = -1
        return taken
    }

    func status() throws(ContentStoreError) -> FileStatus {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw ContentStoreError(errno: errno, "stat of \(path)") }
        return FileStatus(status)
    }

    /// Reads up to the buffer's size at an offset; 0 at the end of the file.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(ContentStoreError) -> Int {
        while true {
            let count = pread(descriptor, buffer.baseAddress, buffer.count, off_t(offset))
            if count >= 0 { return count }
            if errno != EINTR { throw ContentStoreError(errno: errno, "read of \(path)") }
        }
    }

    /// Reads the whole file.
    ///
    /// - Throws: ``ContentStoreError``; `EFBIG` as ``ContentStoreError/noSpace(_:)`` never: a file over `limit` bytes
    ///   gives `nil`.
    func readAll(limit: Int) throws(ContentStoreError) -> [UInt8]? {
        let size = try status().identity.size
        guard size <= limit else { return nil }
        // One byte more than expected shows whether the file grew meanwhile.
        var bytes = [UInt8](repeating: 0, count: Int(size) + 1)
        var count = 0
        while count < bytes.count {
            let result = bytes.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress! + count, $0.count - count, off_t(count))
            }
            if result < 0 {
                if errno == EINTR { continue }
                throw ContentStoreError(errno: errno, "read of \(path)")
            }
            if result == 0 { break }
            count += result
            if count == bytes.count {
                guard count <= limit else { return nil }
                bytes.append(contentsOf: repeatElement(0, count: min(count, limit + 1 - count)))
            }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    /// Reads the whole file if it begins as a JSON object does; `nil` if it does not, or is larger than `limit` bytes.
    func readIfJSON(limit: Int) throws(ContentStoreError) -> [UInt8]? {
        var head = [UInt8](repeating: 0, count: 64)
        let result = head.withUnsafeMutableBytes { buffer -> Result<Int, ContentStoreError> in
            do throws(ContentStoreError) { return .success(try read(into: buffer, at: 0)) } catch {
                return .failure(error)
            }
        }
        let start = head.prefix(try result.get()).first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D }
        return start == UInt8(ascii: "{") ? try readAll(limit: limit) : nil
    }

    /// Writes all bytes at an offset.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(ContentStoreError) {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + Int64(done)))
            if count < 0 {
                if errno == EINTR { continue }
                throw ContentStoreError(errno: errno, "write to \(path)")
            }
            done += count
        }
    }

    /// Makes the bytes durable.
    func sync() throws(ContentStoreError) {
        guard retrying({ fsync(descriptor) }) == 0 else {
            throw ContentStoreError(errno: errno, "sync of \(path)")
        }
    }

    /// Takes an exclusive advisory lock, which ends with the last descriptor of this opening of the file, so with the
    /// process at the latest.
    ///
    /// - Returns: `false` when another process holds it.
    func tryLock() throws(ContentStoreError) -> Bool {
        guard retrying({ flock(descriptor, LOCK_EX | LOCK_NB) }) == 0 else {
            if errno == EWOULDBLOCK { return false }
            throw ContentStoreError(errno: errno, "lock of \(path)")
        }
        return true
    }
}

/// The state of a file, compared without reading it.
struct FileIdentity: Sendable, Hashable, Codable {
    var inode: UInt64
    /// In bytes.
    var size: Int64
    /// Time of the last change of the bytes, in nanoseconds since 1970.
    var modified: Int64
}

/// The fields of `stat(2)` that a store uses.
struct FileStatus: Sendable {
    var identity: FileIdentity
    var isRegular: Bool
    var isDirectory: Bool
    var linkCount: UInt64

    init(_ status: stat) {
        #if canImport(Darwin)
            let time = status.st_mtimespec
        #else
            let time = status.st_mtim
        #endif
        let seconds = Int64(time.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
        identity = FileIdentity(
            inode: UInt64(truncatingIfNeeded: status.st_ino), size: Int64(status.st_size),
            modified: seconds.partialValue &+ Int64(time.tv_nsec))
        isRegular = status.st_mode & S_IFMT == S_IFREG
        isDirectory = status.st_mode & S_IFMT == S_IFDIR
        linkCount = UInt64(status.st_nlink)
    }
}

/// The result of hashing a file.
struct HashedFile: Sendable {
    /// The file's state; the same before and after it was read.
    var identity: FileIdentity
    var digest: Digest
}

extension OpenFile {
    /// Large enough to hash at full speed, small enough to report progress.
    static var hashChunk: Int { 1 << 20 }

    /// Reads the whole file through a hash.
    ///
    /// - Parameter progress: gets the number of bytes of each step; what it throws ends the reading.
    /// - Returns: `nil` when the file changed meanwhile.
    func hash(
        _ algorithm: DigestAlgorithm, progress: (UnsafeRawBufferPointer) throws(ContentStoreError) -> Void = { _ in }
    ) throws(ContentStoreError) -> HashedFile? {
        let before = try status().identity
        var hasher = DigestHasher(algorithm)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.hashChunk, alignment: 4096)
        defer { buffer.deallocate() }
        var offset: Int64 = 0
        while true {
            let count = try read(into: buffer, at: offset)
            if count == 0 { break }
            let chunk = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            hasher.update(chunk)
            try progress(chunk)
            offset += Int64(count)
        }
        guard try status().identity == before, offset == before.size else { return nil }
        return HashedFile(identity: before, digest: hasher.finalize())
    }
}
