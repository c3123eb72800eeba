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

    /// Reads `index.json`.
    ///
    /// - Returns: its bytes and its state at that time.
    /// - Throws: ``ContentStoreError/notALayout(path:reason:)`` when there is none,
    ///   ``ContentStoreError/malformedIndex(path:reason:)`` when it is too large.
    func readIndex() throws(ContentStoreError) -> (bytes: [UInt8], identity: FileIdentity) {
        let name = LayoutIndex.fileName
        let path = "\(directory.path)/\(name)"
        // Read again when it was changed in place while being read; it is normally replaced by a rename.
        for _ in 0..<3 {
            let file: OpenFile
            do throws(ContentStoreError) {
                guard let found = try directory.openFile(name) else {
                    throw ContentStoreError.notALayout(path: directory.path, reason: "it has no \(name)")
                }
                file = found
            } catch .io(_, let number) where number == FileError.loop || number == FileError.invalid {
                throw .malformedIndex(path: path, reason: "it is not a regular file")
            }
            let identity = try file.status().identity
            guard let bytes = try file.readAll(limit: LayoutIndex.sizeLimit) else {
                throw .malformedIndex(
                    path: path,
                    reason: "it has \(identity.size) bytes, more than the \(LayoutIndex.sizeLimit) that are read")
            }
            if try file.status().identity == identity { return (bytes, identity) }
        }
        throw .malformedIndex(path: path, reason: "it changes while it is read")
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
        guard let bytes, let json = try? PreservedJSON.parse(bytes),
            let version = json["imageLayoutVersion"]?.string
        else {
            throw .notALayout(path: path, reason: "\(markerName) has no imageLayoutVersion")
        }
        guard version.hasPrefix("1.0.") else { throw .unsupportedLayoutVersion(path: path, version: version) }
    }

    private static func writeEmptyIndexIfMissing(in directory: Directory) throws(ContentStoreError) {
        guard try directory.status(LayoutIndex.fileName) == nil else { return }
        guard let bytes = try? LayoutIndex(bareTags: nil).encoded() else { return }
        try write(bytes, to: LayoutIndex.fileName, in: directory)
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
    /// - Parameter change: makes the change; `false` when there is nothing to do.
    /// - Returns: `false` when another process holds the lock.
    func editIndex(
        bareTags: ContentSource?, _ change: (inout LayoutIndex) -> Bool
    ) throws(ContentStoreError) -> Bool {
        let lock = try makePrivateDirectory().openForWriting(Self.lockName, exclusively: false)
        guard try lock.tryLock() else { return false }
        let path = "\(directory.path)/\(LayoutIndex.fileName)"
        for _ in 0..<16 {
            let (bytes, identity) = try readIndex()
            var index = try LayoutIndex(parsing: bytes, path: path, bareTags: bareTags)
            guard change(&index) else { return true }
            guard let encoded = try? index.encoded() else {
                throw .malformedIndex(path: path, reason: "it cannot be written again")
            }
            guard encoded.count <= LayoutIndex.sizeLimit else {
                throw .noSpace("\(path) would have more than \(LayoutIndex.sizeLimit) bytes")
            }
            let file = try IngestFile.create(in: makeIngestDirectory())
            try file.append(encoded)
            try file.finishWriting()
            guard try directory.status(LayoutIndex.fileName)?.identity == identity else { continue }
            try file.publish(as: LayoutIndex.fileName, in: directory)
            return true
        }
        throw .unavailable("\(path) is changed by another program all the time")
    }
}
