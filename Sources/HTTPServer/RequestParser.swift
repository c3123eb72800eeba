import NIOCore
import NIOHTTP1

/// Finds and reads request heads in a stream of bytes, strictly by RFC 9112: what two parsers could read differently
/// (bare line feeds, folded fields, blanks before a colon, two lengths, length together with transfer coding) is
/// refused, so that nothing can be smuggled past a proxy in front.
///
/// A value type without I/O: give it the bytes that have arrived, it takes one head out of them when one is complete.
struct RequestParser: Sendable {
    private let lineLimit: Int
    private let headLimit: Int
    private let fieldLimit: Int

    /// Bytes after the buffer's reader index in which line ends were already looked for.
    private var scanned = 0
    /// Where the line being looked at began.
    private var lineStart = 0
    private var lines = 0
    private var emptyLines = 0

    init(limits: HTTPLimits) {
        let limits = limits.clamped()
        lineLimit = limits.requestLineBytes
        headLimit = limits.headBytes
        fieldLimit = limits.headFields
    }

    /// Takes the next request head out of `buffer`.
    ///
    /// - Returns: nil while the head is not complete; call again with the same bytes and more after them.
    mutating func next(from buffer: inout ByteBuffer) throws(RequestRejection) -> RequestHead? {
        if scanned == 0, try !skipEmptyLines(&buffer) { return nil }
        guard let length = try findEnd(in: buffer) else { return nil }
        scanned = 0
        lineStart = 0
        lines = 0
        emptyLines = 0
        guard let bytes = buffer.readSlice(length: length) else { return nil }
        var reader = HeadReader()
        let outcome: Result<HeadReader.Head, RequestRejection> = bytes.withUnsafeReadableBytes { raw in
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

    /// RFC 9112 §2.2: an empty line before the request line is ignored (some clients send one after a body).
    ///
    /// - Returns: false if it takes another byte to know.
    private mutating func skipEmptyLines(_ buffer: inout ByteBuffer) throws(RequestRejection) -> Bool {
        while let byte = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self), byte == cr {
            guard let next = buffer.getInteger(at: buffer.readerIndex + 1, as: UInt8.self) else { return false }
            guard next == lf, emptyLines < 4 else {
                throw RequestRejection(.badRequest, "empty lines before the request")
            }
            buffer.moveReaderIndex(forwardBy: 2)
            emptyLines += 1
        }
        return true
    }

    /// Length of the head with its final empty line, or nil if that has not arrived.
    private mutating func findEnd(in buffer: ByteBuffer) throws(RequestRejection) -> Int? {
        // Kept in locals so that the closure does not hold `self`.
        var scanned = self.scanned
        var lineStart = self.lineStart
        var lines = self.lines
        let (lineLimit, headLimit, fieldLimit) = (self.lineLimit, self.headLimit, self.fieldLimit)
        let found: Result<Int?, RequestRejection> = buffer.withUnsafeReadableBytes { raw in
            if scanned == 0, let first = raw.first, !isTokenCharacter(first) {
                return .failure(RequestRejection(.badRequest, "the connection does not carry HTTP"))
            }
            while scanned < raw.count {
                guard let offset = raw[scanned...].firstIndex(of: lf) else {
                    scanned = raw.count
                    break
                }
                guard offset > lineStart, raw[offset - 1] == cr else {
                    return .failure(RequestRejection(.badRequest, "a line ends without carriage return"))
                }
                let length = offset - 1 - lineStart
                if lines == 0, length > lineLimit { return .failure(lineTooLong(lineLimit)) }
                if offset >= headLimit { return .failure(headTooLong(headLimit)) }
                scanned = offset + 1
                lineStart = scanned
                if length == 0 { return .success(scanned) }
                lines += 1
                if lines - 1 > fieldLimit {
                    return .failure(
                        RequestRejection(.requestHeaderFieldsTooLarge, "more than \(fieldLimit) header fields"))
                }
            }
            // The carriage return of a line of exactly the longest length may be the last byte.
            if lines == 0, raw.count > lineLimit + 1 { return .failure(lineTooLong(lineLimit)) }
            if raw.count >= headLimit { return .failure(headTooLong(headLimit)) }
            return .success(nil)
        }
        self.scanned = scanned
        self.lineStart = lineStart
        self.lines = lines
        return try found.get()
    }
}

private let cr: UInt8 = 0x0d
private let lf: UInt8 = 0x0a

private func lineTooLong(_ limit: Int) -> RequestRejection {
    RequestRejection(.uriTooLong, "the request line is longer than \(limit) bytes")
}

private func headTooLong(_ limit: Int) -> RequestRejection {
    RequestRejection(.requestHeaderFieldsTooLarge, "the request head is longer than \(limit) bytes")
}

/// RFC 9110 §5.6.2 `tchar`.
@inline(__always)
func isTokenCharacter(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x61...0x7a, 0x41...0x5a, 0x2d, 0x30...0x39, 0x21, 0x23...0x27, 0x2a, 0x2b, 0x2e, 0x5e...0x60, 0x7c, 0x7e:
        true
    default: false
    }
}
