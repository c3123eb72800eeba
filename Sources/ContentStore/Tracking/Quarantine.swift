import OCIDistribution

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The files that were found damaged, which are not served while they are in that state.
///
/// Each has a small record in the layout's private directory, for other processes and for the time after a restart; in
/// memory only where the layout cannot be written.
struct Quarantine: Sendable {
    /// Most records that are read or kept.
    static let recordLimit = 100_000

    private struct Record: Codable {
        var inode: UInt64
        var size: Int64
        var modified: Int64
        var reason: String
    }

    private var records: [Digest: FileIdentity] = [:]

    /// The state in which a digest's file was found damaged.
    subscript(digest: Digest) -> FileIdentity? { records[digest] }

    var digests: some Collection<Digest> { records.keys }

    /// Reads all records.
    mutating func load(from root: LayoutRoot) {
        records = [:]
        guard let directory = try? root.privateDirectory()?.directory(LayoutRoot.quarantineName) else { return }
        try? directory.forEachEntry { name in
            if let digest = Self.digest(ofRecord: name) { reload(digest, from: directory) }
        }
    }

    /// Reads one record, which another process may have added, changed or removed.
    mutating func reload(_ digest: Digest, from directory: Directory) {
        guard records.count < Self.recordLimit || records[digest] != nil else { return }
        guard let file = try? directory.openFile(Self.recordName(digest)),
            let bytes = try? file.readAll(limit: 16 << 10),
            let record = try? JSONDecoder().decode(Record.self, from: Data(bytes))
        else {
            records[digest] = nil
            return
        }
        records[digest] = FileIdentity(inode: record.inode, size: record.size, modified: record.modified)
    }

    /// Adds a record.
    ///
    /// - Throws: ``ContentStoreError`` when the record is in memory only.
    mutating func add(
        _ digest: Digest, identity: FileIdentity, reason: String, root: LayoutRoot
    ) throws(ContentStoreError) {
        guard records.count < Self.recordLimit || records[digest] != nil else {
            throw .noSpace("more than \(Self.recordLimit) damaged blobs in \(root.directory.path)")
        }
        records[digest] = identity
        let record = Record(
            inode: identity.inode, size: identity.size, modified: identity.modified, reason: reason)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(record) else { return }
        let directory = try root.makePrivateDirectory().makeDirectory(LayoutRoot.quarantineName)
        let file = try IngestFile.create(in: root.makeIngestDirectory())
        try file.append([UInt8](bytes))
        try file.publish(as: Self.recordName(digest), in: directory)
    }

    /// Removes a record, because the file was replaced by a valid one or removed.
    mutating func remove(_ digest: Digest, root: LayoutRoot) {
        guard records.removeValue(forKey: digest) != nil else { return }
        let directory = try? root.privateDirectory()?.directory(LayoutRoot.quarantineName)
        try? directory?.unlink(Self.recordName(digest))
    }

    static func recordName(_ digest: Digest) -> String { "\(digest.algorithm.rawValue)-\(digest.hex)" }

    static func digest(ofRecord name: String) -> Digest? {
        guard let dash = name.firstIndex(of: "-") else { return nil }
        return try? Digest(parsing: "\(name[..<dash]):\(name[name.index(after: dash)...])")
    }
}
