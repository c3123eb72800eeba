import NIOHTTP1

/// The head of one HTTP/1.x request: request line and header fields (RFC 9112 §2-§3).
public struct RequestHead: Sendable {
    /// How the bytes after the head are framed (RFC 9112 §6).
    enum Body: Sendable, Hashable {
        case none
        case length(Int64)
        case chunked
    }

    /// The request method; methods this server does not know keep their name.
    public let method: HTTPMethod
    /// The request target as sent, but with scheme and authority of an absolute-form target taken off, so that it
    /// begins with `/` (or is `*`).
    public let target: String
    /// The HTTP version of the request.
    public let version: HTTPVersion
    /// The header fields.
    public let fields: HeaderFields

    let body: Body
    /// Whether the client allows the connection to be used again (RFC 9112 §9.3).
    let keepAlive: Bool
    let expectsContinue: Bool

    /// The part of ``target`` before the query.
    public var path: Substring {
        target.prefix { $0 != "?" }
    }

    /// The part of ``target`` after the first `?`, or nil if there is none.
    public var query: Substring? {
        guard let mark = target.utf8.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        return target[target.utf8.index(after: mark)...]
    }
}

/// Why a request cannot be understood. The connection is closed after the answer, because what follows on it cannot be
/// told apart from the rest of the bad request.
struct RequestRejection: Error, Hashable, CustomStringConvertible {
    let status: HTTPResponseStatus
    let reason: String

    init(_ status: HTTPResponseStatus, _ reason: String) {
        self.status = status
        self.reason = reason
    }

    var description: String { "\(status.code) \(status.reasonPhrase): \(reason)" }
}
