import NIOHTTP1

/// Reads the lines of one complete request head whose line ends are known to be sound.
struct HeadReader {
    struct Head {
        var method: HTTPMethod
        var target: String
        var version: HTTPVersion
        var body: RequestHead.Body
        var keepAlive: Bool
    }

    private(set) var fields: [HeaderFields.Field] = []
    private(set) var expectsContinue = false

    private var hosts = 0
    private var contentLength: Int64?
    private var chunked = false
    private var wantsClose = false
    private var wantsKeepAlive = false

    mutating func read(_ raw: UnsafeRawBufferPointer) throws(RequestRejection) -> Head {
        let lineEnd = endOfLine(raw, from: 0)
        let (method, target, version) = try readRequestLine(raw, end: lineEnd)
        fields.reserveCapacity(8)
        var position = lineEnd + 2
        while position < raw.count {
            let end = endOfLine(raw, from: position)
            if end == position { break }
            try readField(raw, start: position, end: end)
            position = end + 2
        }
        // RFC 9112 §3.2: exactly one Host on HTTP/1.1.
        if hosts > 1 { throw RequestRejection(.badRequest, "more than one Host field") }
        if hosts == 0, version.minor > 0 { throw RequestRejection(.badRequest, "no Host field") }
        // RFC 9112 §6.1: a request with both may be an attempt at smuggling.
        if chunked, contentLength != nil {
            throw RequestRejection(.badRequest, "both Content-Length and Transfer-Encoding")
        }
        if chunked, version.minor == 0 { throw RequestRejection(.badRequest, "Transfer-Encoding in HTTP/1.0") }
        let body: RequestHead.Body =
            if chunked { .chunked } else if let contentLength, contentLength > 0 { .length(contentLength) } else {
                .none
            }
        let keepAlive = !wantsClose && (version.minor > 0 || wantsKeepAlive)
        return Head(method: method, target: target, version: version, body: body, keepAlive: keepAlive)
    }

    private func endOfLine(_ raw: UnsafeRawBufferPointer, from start: Int) -> Int {
        // Every line was seen to end in CR LF, so the first LF has its CR before it.
        (raw[start...].firstIndex(of: 0x0a) ?? raw.count + 1) - 1
    }

    private func readRequestLine(
        _ raw: UnsafeRawBufferPointer, end: Int
    ) throws(RequestRejection) -> (HTTPMethod, String, HTTPVersion) {
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
            throw RequestRejection(.httpVersionNotSupported, "only HTTP/1.1 and HTTP/1.0 are spoken here")
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

    private mutating func readField(_ raw: UnsafeRawBufferPointer, start: Int, end: Int) throws(RequestRejection) {
        var colon = start
        while colon < end, isTokenCharacter(raw[colon]) { colon += 1 }
        guard colon > start, colon < end, raw[colon] == 0x3a else {
            throw RequestRejection(.badRequest, "a header field has no valid name")
        }
        var valueStart = colon + 1
        var valueEnd = end
        while valueStart < valueEnd, raw[valueStart] == 0x20 || raw[valueStart] == 0x09 { valueStart += 1 }
        while valueEnd > valueStart, raw[valueEnd - 1] == 0x20 || raw[valueEnd - 1] == 0x09 { valueEnd -= 1 }
        for byte in raw[valueStart..<valueEnd] where byte < 0x20 && byte != 0x09 || byte == 0x7f {
            throw RequestRejection(.badRequest, "a header field has a control character in its value")
        }
        fields.append(
            HeaderFields.Field(
                nameStart: UInt32(start), nameLength: UInt32(colon - start),
                valueStart: UInt32(valueStart), valueLength: UInt32(valueEnd - valueStart)))
        try interpret(name: raw[start..<colon], value: raw[valueStart..<valueEnd])
    }

    /// The fields that decide about framing and about the connection itself.
    private mutating func interpret(
        name: Slice<UnsafeRawBufferPointer>, value: Slice<UnsafeRawBufferPointer>
    ) throws(RequestRejection) {
        switch name.count {
        case 4 where equal(name, "host"):
            hosts += 1
        case 6 where equal(name, "expect"):
            guard equal(value, "100-continue") else {
                throw RequestRejection(.expectationFailed, "only the expectation 100-continue is known")
            }
            expectsContinue = true
        case 10 where equal(name, "connection"):
            for option in value.split(separator: 0x2c) {
                let option = trimmed(option)
                if equal(option, "close") { wantsClose = true }
                if equal(option, "keep-alive") { wantsKeepAlive = true }
            }
        case 14 where equal(name, "content-length"):
            guard contentLength == nil else {
                throw RequestRejection(.badRequest, "more than one Content-Length field")
            }
            guard !value.isEmpty, value.count <= 18, value.allSatisfy({ $0 &- 0x30 < 10 }) else {
                throw RequestRejection(.badRequest, "Content-Length is not a number")
            }
            contentLength = value.reduce(0) { $0 * 10 + Int64($1 - 0x30) }
        case 17 where equal(name, "transfer-encoding"):
            guard !chunked else { throw RequestRejection(.badRequest, "more than one Transfer-Encoding field") }
            guard equal(value, "chunked") else {
                throw RequestRejection(.notImplemented, "only the transfer coding chunked is known")
            }
            chunked = true
        default:
            break
        }
    }

    private func trimmed(_ bytes: Slice<UnsafeRawBufferPointer>) -> Slice<UnsafeRawBufferPointer> {
        var bytes = bytes
        while let first = bytes.first, first == 0x20 || first == 0x09 { bytes.removeFirst() }
        while let last = bytes.last, last == 0x20 || last == 0x09 { bytes.removeLast() }
        return bytes
    }

    /// Whether `bytes` is `text` (small letters) without regard to case.
    private func equal(_ bytes: Slice<UnsafeRawBufferPointer>, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount else { return false }
        var position = 0
        for byte in bytes {
            guard lowercasedASCII(byte) == text.utf8Start[position] else { return false }
            position += 1
        }
        return true
    }
}
