import OCIDistribution

/// Which bytes a transfer delivers, how far it has come, and which responses of peers may start or continue it.
///
/// A value type without I/O. The first accepted response fixes the size and digest of the content; every further one must
/// agree with them and begin exactly at the next byte.
struct TransferPlan: Sendable {
    /// What the client asked for.
    enum Wanted: Sendable, Hashable {
        /// All of it.
        case whole
        /// One byte range.
        case range(ByteRange)
    }

    /// What a response must state to be accepted.
    struct Expectation: Sendable {
        /// The digest of the content; nil when a tag was asked for.
        var digest: Digest?
        /// Whether it must be a manifest.
        var isManifest: Bool
        /// Whether only the head is wanted.
        var isHead: Bool
        /// The size of the content in bytes, where a verified manifest names it; nil when it is not known.
        var size: Int64?
    }

    /// A response whose body starts or continues the transfer.
    struct Acceptance: Sendable, Hashable {
        /// The size of the whole content in bytes.
        var total: Int64
        /// The bytes of the content that the body holds.
        var body: Range<Int64>
        /// The digest of the content, for a tag the one the peer states.
        var digest: Digest
    }

    /// Why a response is rejected.
    enum Rejection: Sendable, Hashable {
        case status(Int)
        case noLength
        case encoded
        case wrongDigest(String)
        case noDigest
        case wrongType(String)
        case wrongLength(expected: Int64, got: Int64)
        /// More than content can have whose size is not known.
        case tooLarge(Int64)
        case wrongRange(String)
        case ignoresRange
    }

    /// The judgement of a response.
    enum Verdict: Sendable, Hashable {
        case accept(Acceptance)
        /// The peer states that the range lies outside of the content, which is this long.
        case unsatisfiable(size: Int64)
        /// The peer is overloaded.
        case busy
        case reject(Rejection)
    }

    /// Bytes at the front of a whole body that are received and dropped when a peer ignores the range asked for. A
    /// response with more is rejected.
    static let skipLimit: Int64 = 4 * 1024 * 1024
    /// The largest blob that is taken from a peer when no verified manifest names its size, in bytes: a body without end is
    /// never found to be wrong.
    static let largestBlob: Int64 = 64 << 30

    let wanted: Wanted
    private(set) var expectation: Expectation
    private var asked: Expectation
    /// The size of the whole content, once known.
    private(set) var total: Int64?
    /// The bytes to deliver, once known.
    private(set) var range: Range<Int64>?
    /// The next byte to deliver.
    private(set) var offset: Int64 = 0
    /// Position within the content of the next byte of the response being received.
    private var position: Int64 = 0
    /// Where that body ends.
    private var bodyEnd: Int64 = 0

    init(wanted: Wanted, expectation: Expectation) {
        self.wanted = wanted
        self.expectation = expectation
        asked = expectation
    }

    /// The digest of the tag that was asked for is known.
    ///
    /// - Parameters:
    ///   - isHead: whether only the head is wanted after all.
    ///   - size: the size of the content, if it is known.
    mutating func resolved(to digest: Digest, isHead: Bool, size: Int64?) {
        (expectation.digest, expectation.isHead, expectation.size) = (digest, isHead, size)
        asked = expectation
    }

    /// Whether every byte was delivered.
    var isComplete: Bool { range.map { offset >= $0.upperBound } ?? false }

    /// Whether every byte was delivered and the response continues nevertheless, because the peer ignored the range it was
    /// asked for.
    var hasSurplus: Bool { isComplete && position < bodyEnd }

    /// Bytes to deliver in all; 0 before the first accepted response.
    var length: Int64 { range.map { $0.upperBound - $0.lowerBound } ?? 0 }

    /// Whether the bytes to deliver are all of the content, so that its digest can be verified.
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

    /// Starts again from the first byte, because what was received, and not sent to a client, proved wrong.
    mutating func restart() {
        total = nil
        range = nil
        offset = 0
        position = 0
        bodyEnd = 0
        expectation = asked
    }

    /// Judges the head of a response to a request with ``nextRange``.
    func judge(_ head: PeerResponseHead) -> Verdict {
        switch head.status {
        case 200: return judgeWhole(head)
        case 206: return judgePart(head)
        case 416: return judgeUnsatisfied(head)
        case 429, 503: return .busy
        default: return .reject(.status(head.status))
        }
    }

    private func isPlausible(_ size: Int64) -> Bool {
        expectation.size != nil || size <= (expectation.isManifest ? Int64(Manifest.maximumSize) : Self.largestBlob)
    }

    private func judgeWhole(_ head: PeerResponseHead) -> Verdict {
        if let rejection = commonFault(head) { return .reject(rejection) }
        guard let length = head.contentLength else { return .reject(.noLength) }
        if let size = total ?? expectation.size, size != length {
            return .reject(.wrongLength(expected: size, got: length))
        }
        guard isPlausible(length) else { return .reject(.tooLarge(length)) }
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
        guard case .satisfied(let part, let size)? = try? ContentRange(parsing: field),
            let size = size ?? total ?? expectation.size
        else {
            return .reject(.wrongRange(field))
        }
        if let known = total ?? expectation.size, known != size {
            return .reject(.wrongLength(expected: known, got: size))
        }
        guard isPlausible(size) else { return .reject(.tooLarge(size)) }
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
            (total ?? expectation.size).map({ $0 == size }) ?? true, (try? asked.resolve(size: size)) == nil
        else { return .reject(.status(416)) }
        return .unsatisfiable(size: size)
    }

    private func commonFault(_ head: PeerResponseHead) -> Rejection? {
        if head.isTransferEncoded || head.isContentEncoded { return .encoded }
        if let text = head.digest {
            guard let stated = try? Digest(parsing: text) else { return .wrongDigest(text) }
            if let digest = expectation.digest, digest != stated { return .wrongDigest(text) }
        } else if expectation.digest == nil {
            // Without it the content of a tag could not be verified, nor continued from another peer.
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

    /// Continues with an accepted response.
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
        // A tag may be moved during the transfer; the rest must be of the same content.
        expectation.digest = acceptance.digest
    }

    /// Counts bytes of the accepted response's body.
    ///
    /// - Returns: how many of them to skip, and how many after those to deliver.
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

    /// The media type that a peer states for a manifest; the common types are found without parsing the text.
    init(statedManifestType text: String) {
        self = Self.commonManifestTypes.first { $0.rawValue == text } ?? MediaType(contentType: text)
    }
}
