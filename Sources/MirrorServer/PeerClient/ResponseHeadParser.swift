import HTTPServer
import NIOCore

/// Reads the heads of a peer's HTTP/1.x responses (RFC 9112 §4) from a stream of bytes.
///
/// A value type without I/O: give it the bytes that have arrived, it takes a head out of them once it is complete.
struct ResponseHeadParser: Sendable {
    /// Most bytes of one head, interim responses counted on their own.
    static let headLimit = 16 * 1024
    /// Most interim responses (1xx) before the final one.
    static let interimLimit = 8

    // A field takes at least four bytes, so that the head's limit bounds their number.
    private var lexer = HeadLexer(
        limits: HeadLexer.Limits(startLineBytes: headLimit, headBytes: headLimit, fields: headLimit / 4))
    private var interim = 0

    /// Takes the next head out of `buffer`.
    ///
    /// - Returns: nil while the head is not complete; call again with the same bytes and more after them.
    mutating func next(from buffer: inout ByteBuffer) throws(PeerProtocolError) -> PeerResponseHead? {
        while true {
            let bytes: ByteBuffer?
            do throws(HeadSyntaxError) {
                bytes = try lexer.next(from: &buffer)
            } catch {
                throw PeerProtocolError("\(error)")
            }
            guard let bytes else { return nil }
            let result: Result<PeerResponseHead, PeerProtocolError> = bytes.withUnsafeReadableBytes { raw in
                do throws(PeerProtocolError) { return .success(try Self.read(raw)) } catch { return .failure(error) }
            }
            let head = try result.get()
            if head.status >= 200 {
                interim = 0
                return head
            }
            interim += 1
            // 101 would hand the connection to another protocol, which was never asked for.
            guard head.status != 101, interim <= Self.interimLimit else {
                throw PeerProtocolError("unexpected interim response \(head.status)")
            }
        }
    }

    private static func read(_ raw: UnsafeRawBufferPointer) throws(PeerProtocolError) -> PeerResponseHead {
        var lines = HeadLines(raw)
        var (head, minorVersion) = try readStatusLine(lines.startLine)
        var framing = MessageFraming()
        do throws(HeadSyntaxError) {
            while let field = try lines.nextField() {
                let (name, value) = (lines.name(of: field), lines.value(of: field))
                if try framing.read(name: name, value: value) { continue }
                try read(name: name, value: value, into: &head)
            }
            try framing.validate()
        } catch {
            throw PeerProtocolError("\(error)")
        }
        head.contentLength = framing.contentLength
        head.isTransferEncoded = framing.transferCoding != .none
        head.keepsConnection = framing.keepsConnection(minorVersion: minorVersion)
        return head
    }

    /// `HTTP/1.1 200 OK`, the reason being optional.
    private static func readStatusLine(
        _ line: Slice<UnsafeRawBufferPointer>
    ) throws(PeerProtocolError) -> (PeerResponseHead, minorVersion: Int) {
        let bytes = UnsafeRawBufferPointer(rebasing: line)
        guard bytes.count >= 12, bytes[..<7].elementsEqual("HTTP/1.".utf8), bytes[8] == 0x20,
            bytes[7] == 0x30 || bytes[7] == 0x31, bytes.count == 12 || bytes[12] == 0x20
        else { throw PeerProtocolError("no HTTP/1 status line") }
        var status = 0
        for byte in bytes[9..<12] {
            guard byte &- 0x30 < 10 else { throw PeerProtocolError("no HTTP/1 status line") }
            status = status * 10 + Int(byte - 0x30)
        }
        guard (100..<600).contains(status) else { throw PeerProtocolError("status \(status)") }
        return (PeerResponseHead(status: status), Int(bytes[7] - 0x30))
    }

    private static func read(
        name: Slice<UnsafeRawBufferPointer>, value: Slice<UnsafeRawBufferPointer>, into head: inout PeerResponseHead
    ) throws(HeadSyntaxError) {
        switch name.count {
        case 12 where equalsIgnoringCase(name, "content-type"):
            head.contentType = String(decoding: value, as: UTF8.self)
        case 13 where equalsIgnoringCase(name, "content-range"):
            guard head.contentRange == nil else { throw .repeatedField("Content-Range") }
            head.contentRange = String(decoding: value, as: UTF8.self)
        case 16 where equalsIgnoringCase(name, "content-encoding"):
            if !equalsIgnoringCase(value, "identity") { head.isContentEncoded = true }
        case 21 where equalsIgnoringCase(name, "docker-content-digest"):
            guard head.digest == nil else { throw .repeatedField("Docker-Content-Digest") }
            head.digest = String(decoding: value, as: UTF8.self)
        default:
            break
        }
    }
}

/// The head of a peer's response: status, framing and the fields that a mirror uses.
struct PeerResponseHead: Sendable, Hashable {
    /// The status code, 200-599. Interim responses (1xx) are skipped by the parser.
    var status: Int
    /// The length of the body in bytes; nil when the peer does not state it.
    var contentLength: Int64?
    /// The value of `Content-Type`.
    var contentType: String?
    /// The value of `Docker-Content-Digest`.
    var digest: String?
    /// The value of `Content-Range`.
    var contentRange: String?
    /// Whether the body has a content coding other than identity (`Content-Encoding`, RFC 9110 §8.4).
    var isContentEncoded = false
    /// Whether the body has a transfer coding, which is not decoded: such a response is rejected.
    var isTransferEncoded = false
    /// Whether the peer keeps the connection open after this response.
    var keepsConnection = true

    /// Creates a head without fields.
    init(status: Int) { self.status = status }
}

/// How a peer violated HTTP.
struct PeerProtocolError: Error, Hashable, CustomStringConvertible {
    let reason: String
    init(_ reason: String) { self.reason = reason }
    var description: String { "the peer violated HTTP: \(reason)" }
}
