import NIOCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Finds the heads of HTTP/1.x messages in a stream of bytes and splits them into lines and fields, strictly by
/// RFC 9112 §2-§5. Requests of clients and responses of peers are read by the same code.
///
/// What two parsers could read differently (bare line feeds, folded fields, blanks before a colon) is refused, so that
/// nothing can be smuggled past a proxy in front.
///
/// A value type without I/O: give it the bytes that have arrived, it takes one head out of them when one is complete.
package struct HeadLexer: Sendable {
    /// The bounds of a head.
    package struct Limits: Sendable {
        /// Longest request or status line in bytes, without its line ending.
        package var startLineBytes: Int
        /// Most bytes of a whole head, with the empty line that ends it.
        package var headBytes: Int
        /// Most header fields.
        package var fields: Int

        package init(startLineBytes: Int, headBytes: Int, fields: Int) {
            self.startLineBytes = startLineBytes
            self.headBytes = headBytes
            self.fields = fields
        }
    }

    private let limits: Limits
    /// Bytes after the buffer's reader index in which line ends were already looked for.
    private var scanned = 0
    /// Where the line being scanned began.
    private var lineStart = 0
    private var lines = 0

    package init(limits: Limits) { self.limits = limits }

    /// Whether no byte of a head has been scanned.
    package var isBetweenHeads: Bool { scanned == 0 }

    /// Takes the next head out of `buffer`, with the empty line that ends it.
    ///
    /// - Returns: nil while the head is not complete; call again with the same bytes and more after them.
    package mutating func next(from buffer: inout ByteBuffer) throws(HeadSyntaxError) -> ByteBuffer? {
        guard let length = try findEnd(in: buffer) else { return nil }
        scanned = 0
        lineStart = 0
        lines = 0
        return buffer.readSlice(length: length)
    }

    /// The length of the head with its final empty line, or nil if that has not arrived.
    private mutating func findEnd(in buffer: ByteBuffer) throws(HeadSyntaxError) -> Int? {
        // Kept in locals so that the closure does not hold `self`.
        var scanned = self.scanned
        var lineStart = self.lineStart
        var lines = self.lines
        let limits = self.limits
        let found: Result<Int?, HeadSyntaxError> = buffer.withUnsafeReadableBytes { raw in
            if scanned == 0, let first = raw.first, !isTokenCharacter(first) { return .failure(.notHTTP) }
            while scanned < raw.count {
                guard let offset = firstLineFeed(in: raw, from: scanned) else {
                    scanned = raw.count
                    break
                }
                guard offset > lineStart, raw[offset - 1] == carriageReturn else { return .failure(.bareLineFeed) }
                let length = offset - 1 - lineStart
                if lines == 0, length > limits.startLineBytes {
                    return .failure(.startLineTooLong(limit: limits.startLineBytes))
                }
                if offset >= limits.headBytes { return .failure(.headTooLong(limit: limits.headBytes)) }
                scanned = offset + 1
                lineStart = scanned
                if length == 0 { return .success(scanned) }
                lines += 1
                if lines - 1 > limits.fields { return .failure(.tooManyFields(limit: limits.fields)) }
            }
            // The carriage return of a line of exactly the longest length may be the last byte.
            if lines == 0, raw.count > limits.startLineBytes + 1 {
                return .failure(.startLineTooLong(limit: limits.startLineBytes))
            }
            if raw.count >= limits.headBytes { return .failure(.headTooLong(limit: limits.headBytes)) }
            return .success(nil)
        }
        self.scanned = scanned
        self.lineStart = lineStart
        self.lines = lines
        return try found.get()
    }
}

/// The start line and the fields of one complete head, as ``HeadLexer/next(from:)`` returns it.
package struct HeadLines {
    /// Where one field lies, as offsets from the start of the head.
    package struct Field: Sendable {
        package var nameStart: UInt32
        package var nameLength: UInt32
        package var valueStart: UInt32
        /// Length without the blanks around the value.
        package var valueLength: UInt32
    }

    private let raw: UnsafeRawBufferPointer
    private var position: Int
    /// The request or status line, without its line ending.
    package let startLine: Slice<UnsafeRawBufferPointer>

    /// - Parameter raw: a complete head; valid for as long as this value is used.
    package init(_ raw: UnsafeRawBufferPointer) {
        self.raw = raw
        let end = Self.endOfLine(raw, from: 0)
        startLine = raw[..<end]
        position = end + 2
    }

    /// The next field; nil after the last one.
    package mutating func nextField() throws(HeadSyntaxError) -> Field? {
        guard position < raw.count else { return nil }
        let start = position
        let end = Self.endOfLine(raw, from: start)
        guard end > start else {
            position = raw.count
            return nil
        }
        position = end + 2
        var colon = start
        while colon < end, isTokenCharacter(raw[colon]) { colon += 1 }
        guard colon > start, colon < end, raw[colon] == 0x3a else { throw .invalidFieldName }
        var valueStart = colon + 1
        var valueEnd = end
        while valueStart < valueEnd, isBlank(raw[valueStart]) { valueStart += 1 }
        while valueEnd > valueStart, isBlank(raw[valueEnd - 1]) { valueEnd -= 1 }
        // Without a branch for each byte, so that several are looked at together.
        var invalid: UInt8 = 0
        for position in valueStart..<valueEnd {
            let byte = raw[position]
            invalid |= (byte < 0x20 ? 1 : 0) & (byte == 0x09 ? 0 : 1) | (byte == 0x7f ? 1 : 0)
        }
        if invalid != 0 { throw .invalidFieldValue }
        return Field(
            nameStart: UInt32(start), nameLength: UInt32(colon - start),
            valueStart: UInt32(valueStart), valueLength: UInt32(valueEnd - valueStart))
    }

    package func name(of field: Field) -> Slice<UnsafeRawBufferPointer> {
        raw[Int(field.nameStart)..<Int(field.nameStart + field.nameLength)]
    }

    package func value(of field: Field) -> Slice<UnsafeRawBufferPointer> {
        raw[Int(field.valueStart)..<Int(field.valueStart + field.valueLength)]
    }

    private static func endOfLine(_ raw: UnsafeRawBufferPointer, from start: Int) -> Int {
        // The lexer has seen every line end in CR LF, so the first LF has its CR before it.
        (firstLineFeed(in: raw, from: start) ?? raw.count + 1) - 1
    }
}

/// What the fields of a head say about the length of the body (RFC 9112 §6) and about the connection (§9).
package struct MessageFraming: Sendable {
    /// `Transfer-Encoding`.
    package enum TransferCoding: Sendable, Hashable {
        case none
        case chunked
        /// Any other coding, alone or with others.
        case unsupported
    }

    /// `Content-Length`, at most 18 digits; nil when there is none.
    package private(set) var contentLength: Int64?
    package private(set) var transferCoding = TransferCoding.none
    private var wantsClose = false
    private var wantsKeepAlive = false

    package init() {}

    /// Takes in a field.
    ///
    /// - Returns: whether it was about framing or the connection.
    package mutating func read(
        name: Slice<UnsafeRawBufferPointer>, value: Slice<UnsafeRawBufferPointer>
    ) throws(HeadSyntaxError) -> Bool {
        switch name.count {
        case 10 where equalsIgnoringCase(name, "connection"):
            for option in value.split(separator: 0x2c) {
                let option = trimmed(option)
                if equalsIgnoringCase(option, "close") { wantsClose = true }
                if equalsIgnoringCase(option, "keep-alive") { wantsKeepAlive = true }
            }
        case 14 where equalsIgnoringCase(name, "content-length"):
            guard contentLength == nil else { throw .repeatedField("Content-Length") }
            guard !value.isEmpty, value.count <= 18, value.allSatisfy({ $0 &- 0x30 < 10 }) else {
                throw .invalidContentLength
            }
            contentLength = value.reduce(0) { $0 * 10 + Int64($1 - 0x30) }
        case 17 where equalsIgnoringCase(name, "transfer-encoding"):
            guard transferCoding == .none else { throw .repeatedField("Transfer-Encoding") }
            transferCoding = equalsIgnoringCase(value, "chunked") ? .chunked : .unsupported
        default:
            return false
        }
        return true
    }

    /// Refuses a head with two lengths (RFC 9112 §6.1: it may be an attempt at smuggling).
    package func validate() throws(HeadSyntaxError) {
        if transferCoding != .none, contentLength != nil { throw .conflictingLengths }
    }

    /// Whether the sender allows the connection to be used again (RFC 9112 §9.3).
    ///
    /// - Parameter minorVersion: 0 for HTTP/1.0, which has to ask for it.
    package func keepsConnection(minorVersion: Int) -> Bool {
        !wantsClose && (minorVersion > 0 || wantsKeepAlive)
    }

    private func trimmed(_ bytes: Slice<UnsafeRawBufferPointer>) -> Slice<UnsafeRawBufferPointer> {
        var bytes = bytes
        while let first = bytes.first, isBlank(first) { bytes.removeFirst() }
        while let last = bytes.last, isBlank(last) { bytes.removeLast() }
        return bytes
    }
}

/// Why bytes are no head of an HTTP/1.x message.
package enum HeadSyntaxError: Error, Hashable, CustomStringConvertible {
    /// The first byte cannot begin a start line.
    case notHTTP
    case bareLineFeed
    case startLineTooLong(limit: Int)
    case headTooLong(limit: Int)
    case tooManyFields(limit: Int)
    case invalidFieldName
    case invalidFieldValue
    case repeatedField(String)
    case invalidContentLength
    case conflictingLengths

    package var description: String {
        switch self {
        case .notHTTP: "the connection does not carry HTTP"
        case .bareLineFeed: "a line ends without carriage return"
        case .startLineTooLong(let limit): "the first line is longer than \(limit) bytes"
        case .headTooLong(let limit): "the head is longer than \(limit) bytes"
        case .tooManyFields(let limit): "more than \(limit) header fields"
        case .invalidFieldName: "a header field has no valid name"
        case .invalidFieldValue: "a header field has a control character in its value"
        case .repeatedField(let name): "more than one \(name) field"
        case .invalidContentLength: "Content-Length is not a number"
        case .conflictingLengths: "both Content-Length and Transfer-Encoding"
        }
    }
}

private let carriageReturn: UInt8 = 0x0d
private let lineFeed: UInt8 = 0x0a

/// Where the first line feed is, by the C library's search for a byte, which looks at many at once.
@inline(__always)
private func firstLineFeed(in raw: UnsafeRawBufferPointer, from start: Int) -> Int? {
    guard start < raw.count, let base = raw.baseAddress,
        let found = memchr(base + start, Int32(lineFeed), raw.count - start)
    else { return nil }
    return UnsafeRawPointer(found) - base
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

@inline(__always)
private func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

/// `byte` with an ASCII capital made small.
@inline(__always)
func lowercasedASCII(_ byte: UInt8) -> UInt8 {
    byte &- 0x41 < 26 ? byte | 0x20 : byte
}

/// Whether `bytes` is `text` (small letters) without regard to case.
package func equalsIgnoringCase(_ bytes: Slice<UnsafeRawBufferPointer>, _ text: StaticString) -> Bool {
    guard bytes.count == text.utf8CodeUnitCount else { return false }
    var position = 0
    for byte in bytes {
        guard lowercasedASCII(byte) == text.utf8Start[position] else { return false }
        position += 1
    }
    return true
}
