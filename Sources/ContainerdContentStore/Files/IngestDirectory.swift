import ContentStore
import NIOCore
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The directory in which containerd keeps content that it is fetching: `ingest/<hex>/` with `data`, which grows, `total`, its
/// size to be, and `ref`, the name of the ingest.
///
/// `<hex>` is the SHA-256 of the text in `ref`, which for a pull is `<namespace>/1/<kind>-<digest>`: seen on containerd 1.6 to
/// 2.4. So the place of a pull's ingest is computed; others are found by their `ref`. Its functions block for the file system.
struct IngestDirectory: Sendable {
    /// What containerd puts in front of the digest, by what it takes the content for.
    private static let kinds = ["layer-", "config-", "manifest-", "index-", "attestation-", "unknown-"]
    /// Most ingests whose `ref` is read when none is where a pull's would be.
    private static let searchLimit = 256
    /// A longer `ref` or `total` is none.
    private static let smallFileBytes = 1024
    /// An ingest that has not grown for so long is no longer being written: one that was interrupted looks the same but for
    /// that.
    static let idleTime = 15

    private let path: String
    private let namespace: String
    private let isWritten: @Sendable () -> Bool

    /// - Parameters:
    ///   - contentPath: the directory that has `blobs` and `ingest`.
    ///   - isWritten: whether the containerd is still there that was writing when an ingest was opened.
    init(contentPath: String, namespace: String, isWritten: @escaping @Sendable () -> Bool) {
        path = contentPath + "/ingest"
        self.namespace = namespace
        self.isWritten = isWritten
    }

    /// Opens the ingest of a digest; nil when there is none that is being written, or its size is not known yet.
    ///
    /// - Throws: ``ContentStoreError`` when the ingest cannot be opened for another reason than its absence.
    func open(_ digest: Digest) throws(ContentStoreError) -> ArrivingContent? {
        for kind in Self.kinds {
            let reference = "\(namespace)/1/\(kind)\(digest)"
            let name = Digest.hash(.sha256, of: reference.utf8).hex
            if let content = try open(digest, at: "\(path)/\(name)") { return content }
        }
        return try search(digest)
    }

    /// Looks for an ingest with the digest in its name: that of an import, of an annotated descriptor, of this library.
    private func search(_ digest: Digest) throws(ContentStoreError) -> ArrivingContent? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        for _ in 0..<Self.searchLimit {
            guard let entry = readdir(directory) else { return nil }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard !name.hasPrefix("."), let reference = Self.text(of: "\(path)/\(name)/ref"),
                reference.hasPrefix(namespace + "/"), reference.contains(digest.hex)
            else { continue }
            if let content = try open(digest, at: "\(path)/\(name)") { return content }
        }
        return nil
    }

    private func open(_ digest: Digest, at ingest: String) throws(ContentStoreError) -> ArrivingContent? {
        // The files appear one after the other: one that is missing is looked for again by whoever asks again.
        guard let text = Self.text(of: ingest + "/total"), let size = Int64(text), size > 0 else { return nil }
        let descriptor = openReadOnly(ingest + "/data", O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw ContentStoreError(errno: errno, "open of \(ingest)/data")
        }
        let file = ContentFile(takingOwnershipOf: descriptor, size: size)
        let source = IngestFile(descriptor: descriptor, file: file, isWritten: isWritten)
        guard let state = source.state, state.isLinked, time(nil) - state.changedAt <= Self.idleTime else { return nil }
        return ArrivingContent(digest: digest, size: size, source: source)
    }

    /// The text of a small file without white space at its ends; nil when there is none.
    private static func text(of path: String) -> String? {
        let descriptor = openReadOnly(path, O_NOFOLLOW)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: smallFileBytes + 1)
        let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        guard count > 0, count <= smallFileBytes else { return nil }
        let text = bytes[..<count].drop { $0 <= 0x20 }
        return String(
            validating: text[..<(text.lastIndex { $0 > 0x20 }.map { $0 + 1 } ?? text.startIndex)], as: UTF8.self)
    }
}

/// The `data` file of an ingest. containerd appends to it, renames it when the content is committed (an open descriptor goes on),
/// removes it when a fetch is given up, and shortens it when one begins anew.
private struct IngestFile: ArrivingSource {
    struct State {
        var bytes: Int64
        var isLinked: Bool
        /// Seconds since 1970.
        var changedAt: Int
    }

    /// Owned by `file`.
    let descriptor: CInt
    let file: ContentFile
    let isWritten: @Sendable () -> Bool

    /// nil when the system does not say.
    var state: State? {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        #if canImport(Darwin)
            let changedAt = status.st_mtimespec.tv_sec
        #else
            let changedAt = status.st_mtim.tv_sec
        #endif
        return State(bytes: Int64(status.st_size), isLinked: status.st_nlink > 0, changedAt: changedAt)
    }

    var status: ArrivingContent.Status {
        guard let state, state.isLinked, state.bytes <= file.size else { return .failed }
        if state.bytes == file.size { return .complete }
        return isWritten() ? .arriving(bytes: state.bytes) : .failed
    }

    func read(at offset: Int64, count: Int) throws -> ByteBuffer { try file.read(at: offset, count: count) }
}
