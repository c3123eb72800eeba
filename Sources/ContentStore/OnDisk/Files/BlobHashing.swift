import OCIDistribution

/// What hashing a file found.
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
