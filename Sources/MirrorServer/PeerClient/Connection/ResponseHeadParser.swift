import NIOCore

/// Finds and reads the head of an HTTP/1.x answer in a stream of bytes, strictly by RFC 9112.
///
/// A value type without I/O: give it the bytes that have arrived, it takes a head out of them once it is complete.
struct ResponseHeadParser: Sendable {
    /// Most bytes of one head, interim answers counted on their own.
    static let headLimit = 16 * 1024
    /// Most interim answers (1xx) before the real one.
    static let interimLimit = 8

    private var scanned = 0
    private var interim = 0

    /// Takes the next head out of `buffer`.
    ///
    /// - Returns: nil while the head is not complete; call again with the same bytes and more after them.
    mutating func next(from buffer: inout ByteBuffer) throws(PeerProtocolError) -> PeerResponseHead? {
        while true {
            guard let length = try headLength(in: buffer) else { return nil }
            scanned = 0
            guard let bytes = buffer.readSlice(length: length) else { return nil }
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
                throw PeerProtocolError("unexpected interim answer \(head.status)")
            }
        }
    }

    /// The length of the head with the empty line that ends it; nil if that has not arrived.
    private mutating func headLength(in buffer: ByteBuffer) throws(PeerProtocolError) -> Int? {
        let from = scanned
        let found: Int? = buffer.withUnsafeReadableBytes { raw in
            var position = from
            while position < raw.count, let feed = raw[position...].firstIndex(of: 0x0a) {
                if feed >= 3, raw[feed - 1] == 0x0d, raw[feed - 2] == 0x0a, raw[feed - 3] == 0x0d { return feed + 1 }
                position = feed + 1
            }
            return nil
        }
        let length = found ?? buffer.readableBytes
        guard length <= Self.headLimit else {
            throw PeerProtocolError("the head is longer than \(Self.headLimit) bytes")
        }
        if found == nil { scanned = max(0, buffer.readableBytes - 3) }
        return found
    }

    private static func read(_ raw: UnsafeRawBufferPointer) throws(PeerProtocolError) -> PeerResponseHead {
        guard let lineEnd = raw.firstIndex(of: 0x0a), lineEnd >= 1, raw[lineEnd - 1] == 0x0d else {
            throw PeerProtocolError("a line ends without carriage return")
        }
        var (head, isLegacy) = try readStatusLine(raw[..<(lineEnd - 1)])
        var fields = Fields()
        var start = lineEnd + 1
        while start < raw.count {
            guard let feed = raw[start...].firstIndex(of: 0x0a), feed > start, raw[feed - 1] == 0x0d else {
                throw PeerProtocolError("a line ends without carriage return")
            }
            let line = raw[start..<(feed - 1)]
            start = feed + 1
            if line.isEmpty { break }
            try readField(line, into: &head, &fields)
        }
        if head.isTransferEncoded, head.contentLength != nil {
            throw PeerProtocolError("both Content-Length and Transfer-Encoding")
        }
        head.keepsConnection = !fields.close && (!isLegacy || fields.keepAlive)
        return head
    }

    private struct Fields {
        var close = false
        var keepAlive = false
    }

    /// `HTTP/1.1 200 OK`, the reason being optional.
    private static func readStatusLine(
        _ line: Slice<UnsafeRawBufferPointer>
    ) throws(PeerProtocolError) -> (PeerResponseHead, isLegacy: Bool) {
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
        return (PeerResponseHead(status: status), bytes[7] == 0x30)
    }

    private static func readField(
        _ line: Slice<UnsafeRawBufferPointer>, into head: inout PeerResponseHead, _ fields: inout Fields
    ) throws(PeerProtocolError) {
        guard let colon = line.firstIndex(of: 0x3a), colon > line.startIndex else {
            throw PeerProtocolError("a header field has no name")
        }
        let name = line[..<colon]
        for byte in name where byte <= 0x20 || byte >= 0x7f {
            throw PeerProtocolError("a header field has no valid name")
        }
        var value = line[(colon + 1)...]
        while let byte = value.first, byte == 0x20 || byte == 0x09 { value = value.dropFirst() }
        while let byte = value.last, byte == 0x20 || byte == 0x09 { value = value.dropLast() }
        for byte in value where (byte < 0x20 && byte != 0x09) || byte == 0x7f {
            throw PeerProtocolError("a header field has a control character in its value")
        }
        switch name.count {
        case 10 where equal(name, "connection"):
            for option in value.split(separator: 0x2c) {
                let option = option.drop { $0 == 0x20 || $0 == 0x09 }.prefix { $0 != 0x20 && $0 != 0x09 }
                if equal(option, "close") { fields.close = true }
                if equal(option, "keep-alive") { fields.keepAlive = true }
            }
        case 12 where equal(name, "content-type"):
            head.contentType = String(decoding: value, as: UTF8.self)
        case 13 where equal(name, "content-range"):
            guard head.contentRange == nil else { throw PeerProtocolError("more than one Content-Range") }
            head.contentRange = String(decoding: value, as: UTF8.self)
        case 14 where equal(name, "content-length"):
            guard head.contentLength == nil else { throw PeerProtocolError("more than one Content-Length") }
            guard !value.isEmpty, value.count <= 18, value.allSatisfy({ $0 &- 0x30 < 10 }) else {
                throw PeerProtocolError("Content-Length is not a number")
            }
            head.contentLength = value.reduce(0) { $0 * 10 + Int64($1 - 0x30) }
        case 16 where equal(name, "content-encoding"):
            if !equal(value, "identity") { head.isContentEncoded = true }
        case 17 where equal(name, "transfer-encoding"):
            head.isTransferEncoded = true
        case 21 where equal(name, "docker-content-digest"):
            guard head.digest == nil else { throw PeerProtocolError("more than one Docker-Content-Digest") }
            head.digest = String(decoding: value, as: UTF8.self)
        default:
            break
        }
    }

    /// Whether `bytes` is `text` (in small letters) without regard to case.
    private static func equal(_ bytes: Slice<UnsafeRawBufferPointer>, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount else { return false }
        var position = 0
        for byte in bytes {
            let lowered = byte &- 0x41 < 26 ? byte | 0x20 : byte
            guard lowered == text.utf8Start[position] else { return false }
            position += 1
        }
        return true
    }
}
