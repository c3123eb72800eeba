/// Reads JSON (RFC 8259) strictly, piece by piece and in bounded memory: values are skipped or captured as bytes, and none
/// is built.
struct JSONReader {
    /// Why JSON cannot be read.
    enum Failure: Error {
        /// It is not JSON, is nested deeper than ``maximumDepth``, or is not UTF-8.
        case malformed
        /// A captured value has more bytes than allowed.
        case tooLarge(limit: Int)
        /// The source cannot be read.
        case source(ContentStoreError)
    }

    /// Deeper nesting is refused.
    static let maximumDepth = 512

    /// Fills a buffer from an offset and returns the number of bytes; 0 at the end.
    typealias Source = (inout [UInt8], Int64) throws(ContentStoreError) -> Int

    private let source: Source?
    private var buffer: [UInt8]
    private var index = 0
    private var end: Int
    private var offset: Int64 = 0
    private var captured: [UInt8] = []
    private var captureLimit: Int?

    /// Reads bytes that are in memory.
    init(_ bytes: [UInt8]) {
        source = nil
        buffer = bytes
        end = bytes.count
    }

    /// Reads from a source in pieces of 64 KiB.
    init(source: @escaping Source) {
        self.source = source
        buffer = [UInt8](repeating: 0, count: 64 << 10)
        end = 0
    }

    // MARK: Bytes

    /// The next byte; nil at the end.
    mutating func peek() throws(Failure) -> UInt8? {
        if index == end {
            guard let source else { return nil }
            do throws(ContentStoreError) { end = try source(&buffer, offset) } catch { throw .source(error) }
            index = 0
            offset += Int64(end)
            if end == 0 { return nil }
        }
        return buffer[index]
    }

    private mutating func advance() throws(Failure) {
        if let captureLimit {
            guard captured.count < captureLimit else { throw .tooLarge(limit: captureLimit) }
            captured.append(buffer[index])
        }
        index += 1
    }

    private mutating func take() throws(Failure) -> UInt8 {
        guard let byte = try peek() else { throw .malformed }
        try advance()
        return byte
    }

    /// The next byte that is not white space; nil at the end.
    mutating func peekToken() throws(Failure) -> UInt8? {
        while let byte = try peek() {
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            try advance()
        }
        return nil
    }

    /// Consumes a token if it is the next one.
    mutating func take(_ token: Unicode.Scalar) throws(Failure) -> Bool {
        guard try peekToken() == UInt8(ascii: token) else { return false }
        try advance()
        return true
    }

    private mutating func require(_ token: Unicode.Scalar) throws(Failure) {
        guard try take(token) else { throw .malformed }
    }

    /// A string as JSON, with its quotes.
    static func quoted(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = [0x22]
        for byte in text.utf8 {
            switch byte {
            case 0x22, 0x5C: bytes += [0x5C, byte]
            case 0x00..<0x20:
                bytes += Array("\\u00".utf8)
                bytes += [byte >> 4, byte & 0xF].map { $0 < 10 ? 0x30 + $0 : 0x57 + $0 }
            default: bytes.append(byte)
            }
        }
        return bytes + [0x22]
    }

    // MARK: Values

    /// Reads the members of an object: calls `body` with each key, which must consume the value.
    mutating func readObject(
        _ body: (inout JSONReader, String) throws(Failure) -> Void
    ) throws(Failure) {
        try require("{")
        if try take("}") { return }
        repeat {
            let key = try readString()
            try require(":")
            try body(&self, key)
        } while try take(",")
        try require("}")
    }

    /// Reads the elements of an array: calls `body` for each, which must consume it.
    mutating func readArray(_ body: (inout JSONReader) throws(Failure) -> Void) throws(Failure) {
        try require("[")
        if try take("]") { return }
        repeat { try body(&self) } while try take(",")
        try require("]")
    }

    /// Reads a string value, with its escapes decoded.
    mutating func readString() throws(Failure) -> String {
        guard try peekToken() == 0x22 else { throw .malformed }
        let raw = try capture(limit: captureLimit ?? 1 << 20) { (reader) throws(Failure) in try reader.skipString() }
        let content = raw[1..<(raw.count - 1)]
        guard content.contains(0x5C) else { return String(decoding: content, as: UTF8.self) }
        return try Self.unescape(content)
    }

    /// Reads a value's string; skips a value of another type and returns nil.
    mutating func readStringIfAny() throws(Failure) -> String? {
        if try peekToken() == 0x22 { return try readString() }
        try skipValue()
        return nil
    }

    /// Reads a value's integer of at most 64 bits; skips any other value and returns nil.
    mutating func readIntegerIfAny() throws(Failure) -> Int64? {
        let text = String(decoding: try captureValue(limit: captureLimit ?? 1 << 20), as: UTF8.self)
        return Int64(text) ?? Double(text).flatMap { Int64(exactly: $0) }
    }

    /// Consumes a value and returns its bytes.
    mutating func captureValue(limit: Int) throws(Failure) -> [UInt8] {
        _ = try peekToken()
        return try capture(limit: limit) { (reader) throws(Failure) in try reader.skipValue() }
    }

    /// Fails unless only white space is left.
    mutating func finish() throws(Failure) {
        guard try peekToken() == nil else { throw .malformed }
    }

    /// Runs `body` and returns the bytes it consumed, which must be UTF-8. Captures may be nested.
    private mutating func capture(
        limit: Int, _ body: (inout JSONReader) throws(Failure) -> Void
    ) throws(Failure) -> [UInt8] {
        let outer = (captured, captureLimit)
        captured = []
        captureLimit = limit
        try body(&self)
        let result = captured
        (captured, captureLimit) = outer
        if let captureLimit {
            guard captured.count + result.count <= captureLimit else { throw .tooLarge(limit: captureLimit) }
            captured += result
        }
        guard String(validating: result, as: UTF8.self) != nil else { throw .malformed }
        return result
    }

    /// Consumes a value of any type.
    mutating func skipValue() throws(Failure) {
        // The kinds of the open containers; a value is complete when none is open.
        var open: [UInt8] = []
        while true {
            guard let first = try peekToken() else { throw .malformed }
            switch first {
            case 0x7B, 0x5B:
                guard open.count < Self.maximumDepth else { throw .malformed }
                try advance()
                if try take(first == 0x7B ? "}" : "]") { break }
                open.append(first)
                if first == 0x7B { try skipKey() }
                continue
            case 0x22: try skipString()
            case 0x74: try skipLiteral("true")
            case 0x66: try skipLiteral("false")
            case 0x6E: try skipLiteral("null")
            default: try skipNumber()
            }
            // After a value: close containers, or go on with the next value.
            while let container = open.last {
                if try take(",") {
                    if container == 0x7B { try skipKey() }
                    break
                }
                try require(container == 0x7B ? "}" : "]")
                open.removeLast()
            }
            if open.isEmpty { return }
        }
    }

    private mutating func skipKey() throws(Failure) {
        guard try peekToken() == 0x22 else { throw .malformed }
        try skipString()
        try require(":")
    }

    private mutating func skipString() throws(Failure) {
        try advance()
        while true {
            try skipPlainCharacters()
            switch try take() {
            case 0x22: return
            case 0x00..<0x20: throw .malformed
            case 0x5C:
                switch try take() {
                case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74: break
                case 0x75:
                    for _ in 0..<4 {
                        guard Character(UnicodeScalar(try take())).isHexDigit else { throw .malformed }
                    }
                default: throw .malformed
                }
            default: break
            }
        }
    }

    /// Consumes the bytes of the buffer up to a quote, an escape or a control character.
    private mutating func skipPlainCharacters() throws(Failure) {
        guard try peek() != nil else { throw .malformed }
        let start = index
        buffer.withUnsafeBufferPointer { bytes in
            while index < end, bytes[index] >= 0x20, bytes[index] != 0x22, bytes[index] != 0x5C { index += 1 }
        }
        guard let captureLimit else { return }
        guard captured.count + index - start <= captureLimit else { throw .tooLarge(limit: captureLimit) }
        captured += buffer[start..<index]
    }

    private mutating func skipLiteral(_ text: StaticString) throws(Failure) {
        for position in 0..<text.utf8CodeUnitCount {
            guard try take() == text.utf8Start[position] else { throw .malformed }
        }
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    private mutating func skipNumber() throws(Failure) {
        if try peek() == 0x2D { try advance() }
        if try peek() == 0x30 { try advance() } else { try skipDigits() }
        if try peek() == 0x2E {
            try advance()
            try skipDigits()
        }
        if let byte = try peek(), byte | 0x20 == 0x65 {
            try advance()
            if let sign = try peek(), sign == 0x2B || sign == 0x2D { try advance() }
            try skipDigits()
        }
    }

    private mutating func skipDigits() throws(Failure) {
        var count = 0
        while let byte = try peek(), (0x30...0x39).contains(byte) {
            try advance()
            count += 1
        }
        guard count > 0 else { throw .malformed }
    }

    /// Decodes the escapes of a string whose form was checked.
    private static func unescape(_ bytes: ArraySlice<UInt8>) throws(Failure) -> String {
        var units: [UInt16] = []
        var text = ""
        func flush() throws(Failure) {
            if units.isEmpty { return }
            guard let part = String(validating: units, as: UTF16.self) else { throw .malformed }
            text += part
            units = []
        }
        var rest = bytes
        while let start = rest.firstIndex(of: 0x5C) {
            if start > rest.startIndex {
                try flush()
                text += String(decoding: rest[..<start], as: UTF8.self)
            }
            let escape = rest[start + 1]
            var length = 2
            switch escape {
            case 0x62: units.append(0x08)
            case 0x66: units.append(0x0C)
            case 0x6E: units.append(0x0A)
            case 0x72: units.append(0x0D)
            case 0x74: units.append(0x09)
            case 0x75:
                let digits = String(decoding: rest[(start + 2)..<(start + 6)], as: UTF8.self)
                guard let unit = UInt16(digits, radix: 16) else { throw .malformed }
                units.append(unit)
                length = 6
            default: units.append(UInt16(escape))
            }
            rest = rest[(start + length)...]
        }
        try flush()
        return text + String(decoding: rest, as: UTF8.self)
    }
}
