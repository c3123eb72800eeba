import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A file being written in the layout's private directory, which becomes visible under another name when it is complete.
///
/// Whoever writes it holds an advisory lock on it. The lock ends with the process, however that ends, and tells the
/// next one which files nobody will finish. Removed when released, unless it was published. Its methods block.
final class IngestFile: @unchecked Sendable {
    // Used by one thread at a time, as a writer's methods are called one after the other.
    private let directory: Directory
    private let name: String
    /// Open for writing until the file is published, so that whoever watches sees it closed before it gets its name.
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
        // Another process that opens the layout may take the file for a dead one between its making and its locking.
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

    /// Removes files that nobody is writing any more.
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
