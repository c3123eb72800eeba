import NIOCore
import NIOHTTP1

/// Reads the heads of requests (RFC 9112 §3) from a stream of bytes.
///
/// A value type without I/O: give it the bytes that have arrived, it takes one head out of them when one is complete.
struct RequestParser: Sendable {
    /// Most empty lines before a request line.
    private static let emptyLineLimit = 4

    private var lexer: HeadLexer
    private var emptyLines = 0

    init(limits: HTTPLimits) {
        let limits = limits.clamped()
        lexer = HeadLexer(
            limits: HeadLexer.Limits(
                startLineBytes: limits.requestLineBytes, headBytes: limits.headBytes, fields: limits.headFields))
    }

    /// Takes the next request head out of `buffer`.
    ///
    /// - Returns: nil while the head is not complete; call again with the same bytes and more after them.
    mutating func next(from buffer: inout ByteBuffer) throws(RequestRejection) -> RequestHead? {
        if lexer.isBetweenHeads, try !skipEmptyLines(&buffer) { return nil }
        let head: ByteBuffer?
        do throws(HeadSyntaxError) { head = try lexer.next(from: &buffer) } catch { throw RequestRejection(error) }
        guard let head else { return nil }
        emptyLines = 0
        return try Self.read(head)
    }

    /// RFC 9112 §2.2: an empty line before the request line is ignored (some clients send one after a body).
    ///
    /// - Returns: false if it takes another byte to know.
    private mutating func skipEmptyLines(_ buffer: inout ByteBuffer) throws(RequestRejection) -> Bool {
        while let byte = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self), byte == 0x0d {
            guard let next = buffer.getInteger(at: buffer.readerIndex + 1, as: UInt8.self) else { return false }
            guard next == 0x0a, emptyLines < Self.emptyLineLimit else {
                throw RequestRejection(.badRequest, "empty lines before the request")
            }
            buffer.moveReaderIndex(forwardBy: 2)
            emptyLines += 1
        }
        return true
    }

    private static func read(_ bytes: ByteBuffer) throws(RequestRejection) -> RequestHead {
        var reader = RequestReader()
        let outcome: Result<RequestReader.Head, RequestRejection> = bytes.withUnsafeReadableBytes { raw in
            do throws(RequestRejection) {
                return .success(try reader.read(raw))
            } catch {
                return .failure(error)
            }
        }
        let head = try outcome.get()
        return RequestHead(
            method: head.method, target: head.target, version: head.version,
            fields: HeaderFields(bytes: bytes, index: reader.fields),
            body: head.body, keepAlive: head.keepAlive, expectsContinue: reader.expectsContinue)
    }
}

/// Reads one complete request head.
private struct RequestReader {
    struct Head {
        var method: HTTPMethod
        var target: String
        var version: HTTPVersion
        var body: RequestHead.Body
        var keepAlive: Bool
    }

    private(set) var fields: [HeadLines.Field] = []
    private(set) var expectsContinue = false
    private var hasUnknownExpectation = false
    private var hosts = 0
    private var framing = MessageFraming()

    mutating func read(_ raw: UnsafeRawBufferPointer) throws(RequestRejection) -> Head {
        var lines = HeadLines(raw)
        let (method, target, version) = try readRequestLine(lines.startLine)
        fields.reserveCapacity(8)
        do throws(HeadSyntaxError) {
            while let field = try lines.nextField() {
                fields.append(field)
                let (name, value) = (lines.name(of: field), lines.value(of: field))
                if try framing.read(name: name, value: value) { continue }
                switch name.count {
                case 4 where equalsIgnoringCase(name, "host"):
                    hosts += 1
                case 6 where equalsIgnoringCase(name, "expect"):
                    if !equalsIgnoringCase(value, "100-continue") { hasUnknownExpectation = true }
                    expectsContinue = true
                default: break
                }
            }
            try framing.validate()
        } catch {
            throw RequestRejection(error)
        }
        if hasUnknownExpectation {
            throw RequestRejection(.expectationFailed, "only the expectation 100-continue is known")
        }
        // RFC 9112 §3.2: exactly one Host on HTTP/1.1.
        if hosts > 1 { throw RequestRejection(.badRequest, "more than one Host field") }
        if hosts == 0, version.minor > 0 { throw RequestRejection(.badRequest, "no Host field") }
        let keepAlive = framing.keepsConnection(minorVersion: version.minor)
        return Head(method: method, target: target, version: version, body: try body(version), keepAlive: keepAlive)
    }

    private func body(_ version: HTTPVersion) throws(RequestRejection) -> RequestHead.Body {
        switch framing.transferCoding {
        case .unsupported: throw RequestRejection(.notImplemented, "only the transfer coding chunked is known")
        case .chunked where version.minor == 0:
            throw RequestRejection(.badRequest, "Transfer-Encoding in HTTP/1.0")
        case .chunked: return .chunked
        case .none:
            guard let length = framing.contentLength, length > 0 else { return .none }
            return .length(length)
        }
    }

    private func readRequestLine(
        _ line: Slice<UnsafeRawBufferPointer>
    ) throws(RequestRejection) -> (HTTPMethod, String, HTTPVersion) {
        let raw = line.base
        let end = line.endIndex
        var position = 0
        while position < end, isTokenCharacter(raw[position]) { position += 1 }
        guard position > 0, position <= 32, position < end, raw[position] == 0x20 else {
            throw RequestRejection(.badRequest, "the request line has no valid method")
        }
        let method = Self.method(raw[..<position])
        let targetStart = position + 1
        position = targetStart
        while position < end, raw[position] > 0x20, raw[position] < 0x7f { position += 1 }
        guard position > targetStart, position < end, raw[position] == 0x20 else {
            throw RequestRejection(.badRequest, "the request line has no valid target")
        }
        let target = try Self.originForm(raw[targetStart..<position])
        let version = raw[(position + 1)..<end]
        guard version.count == 8, version.starts(with: "HTTP/".utf8), version[version.startIndex + 6] == 0x2e else {
            throw RequestRejection(.badRequest, "the request line has no valid HTTP version")
        }
        let major = version[version.startIndex + 5] &- 0x30
        let minor = version[version.startIndex + 7] &- 0x30
        guard major < 10, minor < 10 else {
            throw RequestRejection(.badRequest, "the request line has no valid HTTP version")
        }
        guard major == 1 else {
            throw RequestRejection(.httpVersionNotSupported, "only HTTP/1.1 and HTTP/1.0 are supported")
        }
        return (method, target, minor == 0 ? .http1_0 : .http1_1)
    }

    private static func method(_ bytes: Slice<UnsafeRawBufferPointer>) -> HTTPMethod {
        if bytes.elementsEqual("GET".utf8) { return .GET }
        if bytes.elementsEqual("HEAD".utf8) { return .HEAD }
        return HTTPMethod(rawValue: String(decoding: bytes, as: UTF8.self))
    }

    /// RFC 9112 §3.2: origin form, or absolute form whose authority is dropped, or `*`.
    private static func originForm(_ bytes: Slice<UnsafeRawBufferPointer>) throws(RequestRejection) -> String {
        if bytes.first == UInt8(ascii: "/") { return String(decoding: bytes, as: UTF8.self) }
        let target = String(decoding: bytes, as: UTF8.self)
        if target == "*" { return target }
        for scheme in ["http://", "https://"]
        where target.utf8.count > scheme.utf8.count && target.prefix(scheme.count).lowercased() == scheme {
            let rest = target.dropFirst(scheme.count)
            guard let slash = rest.firstIndex(where: { $0 == "/" || $0 == "?" }) else { return "/" }
            return rest[slash] == "/" ? String(rest[slash...]) : "/" + rest[slash...]
        }
        throw RequestRejection(.badRequest, "the request target is neither a path nor an http URL")
    }
}

/// Why a request is refused. The connection is closed after the answer, because what follows on it cannot be told apart
/// from the rest of the bad request.
struct RequestRejection: Error, Hashable, CustomStringConvertible {
    let status: HTTPResponseStatus
    let reason: String

    init(_ status: HTTPResponseStatus, _ reason: String) {
        self.status = status
        self.reason = reason
    }

    init(_ error: HeadSyntaxError) {
        status =
            switch error {
            case .startLineTooLong: .uriTooLong
            case .headTooLong, .tooManyFields: .requestHeaderFieldsTooLarge
            default: .badRequest
            }
        reason = "\(error)"
    }

    var description: String { "\(status.code) \(status.reasonPhrase): \(reason)" }
}
