import NIOCore
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

/// The header fields of one request, kept as the bytes that arrived and decoded only when asked for.
///
/// Names compare without regard to case (RFC 9110 §5.1).
public struct HeaderFields: Sendable {
    private let bytes: ByteBuffer
    private let index: [HeadLines.Field]

    init(bytes: ByteBuffer, index: [HeadLines.Field]) {
        self.bytes = bytes
        self.index = index
    }

    /// Number of fields, repeated names counted each time.
    public var count: Int { index.count }

    /// The value of the first field called `name`, without the blanks around it, or nil if there is none.
    public subscript(name: String) -> String? {
        guard let field = index.first(where: { matches($0, name) }) else { return nil }
        return value(of: field)
    }

    /// Every value of the fields called `name`, in the order received.
    public func values(of name: String) -> [String] {
        index.filter { matches($0, name) }.map(value(of:))
    }

    /// Whether a field called `name` is there.
    public func contains(_ name: String) -> Bool {
        index.contains { matches($0, name) }
    }

    private func value(of field: HeadLines.Field) -> String {
        bytes.getString(at: bytes.readerIndex + Int(field.valueStart), length: Int(field.valueLength)) ?? ""
    }

    private func matches(_ field: HeadLines.Field, _ name: String) -> Bool {
        name.utf8.count == Int(field.nameLength)
            && bytes.withUnsafeReadableBytes { raw in
                var position = Int(field.nameStart)
                for byte in name.utf8 {
                    guard lowercasedASCII(raw[position]) == lowercasedASCII(byte) else { return false }
                    position += 1
                }
                return true
            }
    }
}
