import OCIDistribution

/// What is being brought to the client, how far it has come, and which answers of peers may carry it on.
///
/// A value type without I/O. The first accepted answer fixes the size of the content; from then on every further one
/// must agree with it and begin exactly where the last one broke off.
struct TransferPlan: Sendable {
    /// What the client asked for.
    enum Wanted: Sendable, Hashable {
        /// All of it.
        case whole
        /// One byte range.
        case range(ByteRange)
    }

    /// What an answer must say to be taken.
    struct Expectation: Sendable {
        /// The digest of the content; nil when a tag was asked for.
        var digest: Digest?
        /// Whether it must be a manifest.
        var isManifest: Bool
        /// Whether only the head is wanted.
        var isHead: Bool
    }

    /// An answer whose body carries the transfer on.
    struct Acceptance: Sendable, Hashable {
        /// The size of the whole content in bytes.
        var total: Int64
        /// The bytes of the content that the body holds.
        var body: Range<Int64>
        /// The digest of the content, for a tag the one the peer states.
        var digest: Digest
    }

    /// Why an answer is not taken.
    enum Rejection: Sendable, Hashable {
        case status(Int)
        case noLength
        case encoded
        case wrongDigest(String)
        case noDigest
        case wrongType(String)
        case wrongLength(expected: Int64, got: Int64)
        case wrongRange(String)
        case ignoresRange
    }

    /// What to do with an answer.
    enum Verdict: Sendable, Hashable {
        case accept(Acceptance)
        /// The peer says that the range lies outside of the content, which is this long.
        case unsatisfiable(size: Int64)
        /// The peer has too much to do.
        case busy
        case reject(Rejection)
    }

    /// Bytes at the front of a whole body that are read and dropped when a peer ignores the range asked for. Beyond
    /// that another peer is asked instead.
    static let skipLimit: Int64 = 4 * 1024 * 1024

    let wanted: Wanted
    private(set) var expectation: Expectation
    private let asked: Expectation
    /// The size of the whole content, once known.
    private(set) var total: Int64?
    /// The bytes to deliver, once known.
    private(set) var range: Range<Int64>?
    /// The next byte to deliver.
    private(set) var offset: Int64 = 0
    /// Position within the content of the next byte of the body being received.
    private var position: Int64 = 0
    /// Where that body ends.
    private var bodyEnd: Int64 = 0

    /// - Parameter size: the size of the content if it is known from elsewhere, such as the manifest that names it.
    init(wanted: Wanted, expectation: Expectation, size: Int64? = nil) {
        self.wanted = wanted
        self.expectation = expectation
        asked = expectation
        total = size
    }

    /// Whether every byte was delivered.
    var isComplete: Bool { range.map { offset >= $0.upperBound } ?? false }

    /// Whether every byte was delivered and the body being received goes on nevertheless, because the peer ignored the
    /// range it was asked for.
    var hasSurplus: Bool { isComplete && position < bodyEnd }

    /// Bytes still to be delivered; nil before the first answer.
    var remaining: Int64? { range.map { $0.upperBound - offset } }

    /// Whether the bytes to be delivered are all of the content, so that its digest can be checked.
    var coversWhole: Bool {
        guard let range, let total else { return wanted == .whole }
        return range == 0..<total
    }

    /// The `Range` to ask the next peer for; nil for all.
    var nextRange: ByteRange? {
        guard !expectation.isHead else { return nil }
        if let range {
            guard offset > 0 || range.upperBound != total else { return nil }
            guard offset < range.upperBound else { return nil }
            return .bounded(first: offset, last: range.upperBound - 1)
        }
        if case .range(let range) = wanted { return range }
        return nil
    }

    /// Begins again from the first byte, because what was received (and not delivered to the client) proved wrong.
    mutating func restart(size: Int64? = nil) {
        total = size
        range = nil
        offset = 0
        position = 0
        bodyEnd = 0
        expectation = asked
    }

    /// Judges the head of an answer to a request made with ``nextRange``.
    func judge(_ head: PeerResponseHead) -> Verdict {
        switch head.status {
        case 200: return judgeWhole(head)
        case 206: return judgePart(head)
        case 416: return judgeUnsatisfied(head)
        case 429, 503: return .busy
        default: return .reject(.status(head.status))
        }
    }

    private func judgeWhole(_ head: PeerResponseHead) -> Verdict {
        if let rejection = commonFault(head) { return .reject(rejection) }
        guard let length = head.contentLength else { return .reject(.noLength) }
        if let total, total != length { return .reject(.wrongLength(expected: total, got: length)) }
        if let asked = nextRange {
            guard let part = range.map({ offset..<$0.upperBound }) ?? (try? asked.resolve(size: length)) else {
                return .unsatisfiable(size: length)
            }
            guard part.lowerBound <= Self.skipLimit else { return .reject(.ignoresRange) }
        }
        guard let digest = statedDigest(head) else { return .reject(.noDigest) }
        return .accept(Acceptance(total: length, body: 0..<length, digest: digest))
    }

    private func judgePart(_ head: PeerResponseHead) -> Verdict {
        guard let asked = nextRange else { return .reject(.status(206)) }
        if let rejection = commonFault(head) { return .reject(rejection) }
        guard let length = head.contentLength else { return .reject(.noLength) }
        let field = head.contentRange ?? ""
        guard case .satisfied(let part, let size)? = try? ContentRange(parsing: field), let size = size ?? total else {
            return .reject(.wrongRange(field))
        }
        if let total, total != size { return .reject(.wrongLength(expected: total, got: size)) }
        guard let expected = try? asked.resolve(size: size), expected == part else {
            return .reject(.wrongRange(field))
        }
        guard Int64(part.count) == length else {
            return .reject(.wrongLength(expected: Int64(part.count), got: length))
        }
        guard let digest = statedDigest(head) else { return .reject(.noDigest) }
        return .accept(Acceptance(total: size, body: part, digest: digest))
    }

    private func judgeUnsatisfied(_ head: PeerResponseHead) -> Verdict {
        guard range == nil, let asked = nextRange,
            case .unsatisfied(let size)? = try? ContentRange(parsing: head.contentRange ?? ""),
            total == nil || total == size, (try? asked.resolve(size: size)) == nil
        else { return .reject(.status(416)) }
        return .unsatisfiable(size: size)
    }

    private func commonFault(_ head: PeerResponseHead) -> Rejection? {
        if head.isTransferEncoded || head.isContentEncoded { return .encoded }
        if let text = head.digest {
            guard let stated = try? Digest(parsing: text) else { return .wrongDigest(text) }
            if let digest = expectation.digest, digest != stated { return .wrongDigest(text) }
        } else if expectation.digest == nil {
            // Without it the bytes behind a tag could not be checked, nor carried on by another peer.
            return .noDigest
        }
        if expectation.isManifest {
            let type = head.contentType ?? ""
            guard MediaType(statedManifestType: type).isManifest else { return .wrongType(type) }
        }
        return nil
    }

    private func statedDigest(_ head: PeerResponseHead) -> Digest? {
        expectation.digest ?? head.digest.flatMap { try? Digest(parsing: $0) }
    }

    /// Takes an accepted answer as the one that carries on.
    mutating func begin(_ acceptance: Acceptance) {
        total = acceptance.total
        if range == nil {
            switch wanted {
            case .whole: range = 0..<acceptance.total
            case .range(let asked): range = (try? asked.resolve(size: acceptance.total)) ?? 0..<0
            }
            offset = range?.lowerBound ?? 0
        }
        position = acceptance.body.lowerBound
        bodyEnd = acceptance.body.upperBound
        // A tag may be moved while the transfer goes on; the rest must be of the same content.
        expectation.digest = acceptance.digest
    }

    /// Takes in `count` bytes of the accepted answer's body and says which of them to deliver.
    mutating func received(_ count: Int) -> (skip: Int, deliver: Int) {
        let end = range?.upperBound ?? 0
        let skip = Int(min(max(offset - position, 0), Int64(count)))
        let deliver = Int(min(Int64(count - skip), max(end - offset, 0)))
        position += Int64(count)
        offset += Int64(deliver)
        return (skip, deliver)
    }
}

extension MediaType {
    private static let commonManifestTypes: [MediaType] = [
        .imageManifest, .imageIndex, .dockerManifest, .dockerManifestList,
    ]

    /// What a peer says its answer is; the few types that manifests have are found without taking the text apart.
    init(statedManifestType text: String) {
        self = Self.commonManifestTypes.first { $0.rawValue == text } ?? MediaType(contentType: text)
    }
}
