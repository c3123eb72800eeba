import OCIDistribution

/// Changes of `index.json`.
extension LayoutRoot {
    /// Tries to change `index.json` while no other process that uses this library does.
    ///
    /// The file is read anew, changed, written beside and renamed into place. Other programs take no lock; when the file
    /// turns out to have been changed by one just before the rename, it starts anew. (Between that look and the rename a
    /// change could still be lost, as with every other program that writes layouts.)
    ///
    /// - Parameter change: makes the change; `false` when there is nothing to do.
    /// - Returns: `false` when somebody else holds the lock.
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
