import OCIDistribution

/// The root directory of an image layout, with the files every layout has.
struct LayoutRoot: Sendable {
    static let markerName = "oci-layout"
    static let blobsName = "blobs"
    /// The directory of this library's own files; the specification lets a layout have further files.
    static let privateName = ".spegel"
    static let ingestName = "ingest"
    static let quarantineName = "quarantine"
    static let lockName = "lock"

    let directory: Directory

    /// Opens an existing layout.
    ///
    /// - Throws: ``ContentStoreError/notALayout(path:reason:)``,
    ///   ``ContentStoreError/unsupportedLayoutVersion(path:version:)``, or why it cannot be opened.
    static func open(path: String) throws(ContentStoreError) -> LayoutRoot {
        let directory: Directory
        do throws(ContentStoreError) {
            directory = try Directory.open(path: path)
        } catch .io(_, let number) where number == FileError.noEntry {
            throw .notALayout(path: path, reason: "there is no such directory")
        } catch .io(_, let number) where number == FileError.notDirectory {
            throw .notALayout(path: path, reason: "it is not a directory")
        }
        try checkMarker(of: directory)
        return LayoutRoot(directory: directory)
    }

    /// Opens a layout, and creates it when the directory is missing or empty. One whose creation was interrupted is completed;
    /// a directory with other files in it is refused.
    ///
    /// - Throws: as ``open(path:)``, or why it cannot be made.
    static func openOrCreate(path: String) throws(ContentStoreError) -> LayoutRoot {
        try Directory.makePath(path)
        let directory = try Directory.open(path: path)
        if try directory.status(markerName) == nil {
            // The marker too: another process may have just created the layout.
            let known: Set = [markerName, blobsName, LayoutIndex.fileName, privateName, "lost+found"]
            if let other = try directory.entries().sorted().first(where: { !known.contains($0) }) {
                throw .notALayout(
                    path: path, reason: "it has no \(markerName) file, but other files such as \(other)")
            }
            let blobs = try directory.makeDirectory(blobsName)
            _ = try blobs.makeDirectory(DigestAlgorithm.sha256.rawValue)
            try writeEmptyIndexIfMissing(in: directory)
            // Last, as it is what makes the directory a layout.
            try write(Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8), to: markerName, in: directory)
        }
        try checkMarker(of: directory)
        _ = try directory.makeDirectory(blobsName)
        try writeEmptyIndexIfMissing(in: directory)
        return LayoutRoot(directory: directory)
    }

    /// Reads `index.json` in pieces, again when it was changed in place meanwhile; it is normally replaced by a rename.
    ///
    /// - Returns: the result of `body`, and the state of the file that was read.
    /// - Throws: ``ContentStoreError/notALayout(path:reason:)`` when there is none,
    ///   ``ContentStoreError/malformedIndex(path:reason:)`` when it is too large, or what `body` throws.
    func readIndex<Result>(
        _ body: (@escaping JSONReader.Source) throws(ContentStoreError) -> Result
    ) throws(ContentStoreError) -> (result: Result, identity: FileIdentity) {
        for _ in 0..<3 {
            let file = try openIndex()
            let identity = try file.identity
            guard identity.size <= LayoutIndex.sizeLimit else {
                throw .malformedIndex(
                    path: indexPath,
                    reason: "it has \(identity.size) bytes, more than the \(LayoutIndex.sizeLimit) that are read")
            }
            do throws(ContentStoreError) {
                let result = try body(file.read)
                if try file.identity == identity { return (result, identity) }
            } catch {
                if try file.identity == identity { throw error }
            }
        }
        throw .malformedIndex(path: indexPath, reason: "it changes while it is read")
    }

    private var indexPath: String { "\(directory.path)/\(LayoutIndex.fileName)" }

    private func openIndex() throws(ContentStoreError) -> SharedFile {
        do throws(ContentStoreError) {
            guard let file = try directory.openFile(LayoutIndex.fileName) else {
                throw ContentStoreError.notALayout(path: directory.path, reason: "it has no \(LayoutIndex.fileName)")
            }
            return SharedFile(file)
        } catch .io(_, let number) where number == FileError.loop || number == FileError.invalid {
            throw .malformedIndex(path: indexPath, reason: "it is not a regular file")
        }
    }

    /// The directory of this library's own files, if there is one.
    func privateDirectory() throws(ContentStoreError) -> Directory? { try directory.directory(Self.privateName) }

    /// The directory of this library's own files, made if needed.
    func makePrivateDirectory() throws(ContentStoreError) -> Directory {
        try directory.makeDirectory(Self.privateName)
    }

    /// The directory for files being written, made if needed.
    func makeIngestDirectory() throws(ContentStoreError) -> Directory {
        try makePrivateDirectory().makeDirectory(Self.ingestName, mode: 0o700)
    }

    private static func checkMarker(of directory: Directory) throws(ContentStoreError) {
        let path = directory.path
        let bytes: [UInt8]?
        do throws(ContentStoreError) {
            guard let file = try directory.openFile(markerName) else {
                throw ContentStoreError.notALayout(path: path, reason: "it has no \(markerName) file")
            }
            bytes = try file.readAll(limit: 4096)
        } catch .io(_, let number) where number == FileError.loop || number == FileError.invalid {
            throw .notALayout(path: path, reason: "\(markerName) is not a regular file")
        }
        guard let version = bytes.flatMap(layoutVersion) else {
            throw .notALayout(path: path, reason: "\(markerName) has no imageLayoutVersion")
        }
        guard version.hasPrefix("1.0.") else { throw .unsupportedLayoutVersion(path: path, version: version) }
    }

    /// The version in an `oci-layout` file; nil when there is none.
    private static func layoutVersion(_ marker: [UInt8]) -> String? {
        var reader = JSONReader(marker)
        var version: String?
        do throws(JSONReader.Failure) {
            try reader.readObject { (reader, key) throws(JSONReader.Failure) in
                if key == "imageLayoutVersion" {
                    version = try reader.readStringIfAny()
                } else {
                    try reader.skipValue()
                }
            }
            try reader.finish()
            return version
        } catch {
            return nil
        }
    }

    private static func writeEmptyIndexIfMissing(in directory: Directory) throws(ContentStoreError) {
        guard try directory.status(LayoutIndex.fileName) == nil else { return }
        try write(Array(LayoutIndex.empty.utf8), to: LayoutIndex.fileName, in: directory)
    }

    /// Writes a whole file so that it is there with all of its bytes or not at all. Another process that does the same
    /// may be first.
    private static func write(_ bytes: [UInt8], to name: String, in directory: Directory) throws(ContentStoreError) {
        let ingest = try LayoutRoot(directory: directory).makeIngestDirectory()
        let file = try IngestFile.create(in: ingest)
        try file.append(bytes)
        try file.publishIfMissing(as: name, in: directory)
    }
}

/// Changes of `index.json`.
extension LayoutRoot {
    /// Tries to change `index.json` while no other process that uses this library does.
    ///
    /// The file is read, changed, written to a temporary file and renamed. Other programs take no lock; when one has changed
    /// the file just before the rename, the edit is repeated. (Between that check and the rename a change could still be
    /// lost, as with every other program that writes layouts.)
    ///
    /// - Returns: `false` when another process holds the lock.
    func editIndex(bareTags: ContentSource?, _ edit: LayoutIndex.Edit) throws(ContentStoreError) -> Bool {
        let lock = try makePrivateDirectory().openForWriting(Self.lockName, exclusively: false)
        guard try lock.tryLock() else { return false }
        let index = LayoutIndex(path: indexPath, bareTags: bareTags)
        for _ in 0..<16 {
            let (new, identity) = try readIndex { (source) throws(ContentStoreError) in
                try copyIndex(index, source, edit)
            }
            guard let new else { return true }
            try new.finishWriting()
            guard try directory.status(LayoutIndex.fileName)?.identity == identity else { continue }
            try new.publish(as: LayoutIndex.fileName, in: directory)
            return true
        }
        throw .unavailable("\(indexPath) is changed by another program all the time")
    }

    /// Writes a changed copy of an index; nil when the edit changes nothing.
    private func copyIndex(
        _ index: LayoutIndex, _ source: @escaping JSONReader.Source, _ edit: LayoutIndex.Edit
    ) throws(ContentStoreError) -> IngestFile? {
        let file = try IngestFile.create(in: makeIngestDirectory())
        var size = 0
        var buffer: [UInt8] = []
        let isChanged = try index.apply(edit, to: JSONReader(source: source)) { (bytes) throws(ContentStoreError) in
            size += bytes.count
            guard size <= LayoutIndex.sizeLimit else {
                throw ContentStoreError.noSpace("\(indexPath) would have more than \(LayoutIndex.sizeLimit) bytes")
            }
            buffer += bytes
            guard buffer.count >= 64 << 10 else { return }
            try file.append(buffer)
            buffer.removeAll(keepingCapacity: true)
        }
        try file.append(buffer)
        return isChanged ? file : nil
    }
}

/// An open file that a closure can read.
private final class SharedFile {
    private let file: OpenFile

    init(_ file: consuming OpenFile) { self.file = file }

    var identity: FileIdentity {
        get throws(ContentStoreError) { try file.status().identity }
    }

    /// Fills a buffer from an offset; see ``JSONReader/Source``.
    func read(_ buffer: inout [UInt8], at offset: Int64) throws(ContentStoreError) -> Int {
        let result = buffer.withUnsafeMutableBytes { bytes -> Result<Int, ContentStoreError> in
            do throws(ContentStoreError) { return .success(try file.read(into: bytes, at: offset)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
