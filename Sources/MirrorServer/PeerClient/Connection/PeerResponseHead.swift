/// What the head of a peer's answer says, as far as a mirror cares.
struct PeerResponseHead: Sendable, Hashable {
    /// The status code, 200-599. Interim answers (1xx) are skipped by the parser.
    var status: Int
    /// The length of the body in bytes; nil when the peer does not say.
    var contentLength: Int64?
    /// `Content-Type` as it came.
    var contentType: String?
    /// `Docker-Content-Digest` as it came.
    var digest: String?
    /// `Content-Range` as it came.
    var contentRange: String?
    /// Whether the body is coded in a way that hides the content's own bytes (`Content-Encoding`, RFC 9110 §8.4).
    var isContentEncoded = false
    /// Whether the body is framed by `Transfer-Encoding`, which is not read: such an answer is not usable.
    var isTransferEncoded = false
    /// Whether the peer keeps the connection open after this answer.
    var keepsConnection = true

    /// Makes a head without fields.
    init(status: Int) { self.status = status }
}

/// Why the bytes of a peer are not an HTTP answer.
struct PeerProtocolError: Error, Hashable, CustomStringConvertible {
    let reason: String
    init(_ reason: String) { self.reason = reason }
    var description: String { "the peer broke HTTP: \(reason)" }
}
