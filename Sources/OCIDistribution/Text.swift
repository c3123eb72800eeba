/// Calls `body` with the UTF-8 of `text`, without copying it where the string stores it contiguously.
@inlinable
func withUTF8<Value, Failure: Error>(
    of text: some StringProtocol,
    _ body: (UnsafeBufferPointer<UInt8>) throws(Failure) -> Value
) throws(Failure) -> Value {
    func capture(_ bytes: UnsafeBufferPointer<UInt8>) -> Result<Value, Failure> {
        do throws(Failure) { return .success(try body(bytes)) } catch { return .failure(error) }
    }
    if let result = text.utf8.withContiguousStorageIfAvailable(capture) { return try result.get() }
    var copy = String(text)
    return try copy.withUTF8(capture).get()
}

/// At most 160 bytes of input from outside, printable ASCII only, for use in an error message.
///
/// Errors end up in logs and in HTTP answers: they name the input, but neither its full length nor its control
/// characters get through.
func sanitizedExcerpt(_ bytes: some Sequence<UInt8>) -> String {
    let limit = 160
    var text = ""
    for (index, byte) in bytes.enumerated() {
        if index == limit {
            text += "…"
            break
        }
        switch byte {
        case 0x22, 0x5C: text += "\\" + String(UnicodeScalar(byte))
        case 0x20...0x7E: text.unicodeScalars.append(UnicodeScalar(byte))
        default:
            text += "\\x"
            text.unicodeScalars.append(UnicodeScalar(hexDigit(byte >> 4)))
            text.unicodeScalars.append(UnicodeScalar(hexDigit(byte & 0xF)))
        }
    }
    return "\"\(text)\""
}

/// Text from outside without what a terminal would take for a command: its printable ASCII, at most `limit` characters.
package func printableASCII(_ text: some StringProtocol, limit: Int = 80) -> String {
    let printable = text.unicodeScalars.lazy.filter { (0x20...0x7e).contains($0.value) }
    var result = ""
    result.unicodeScalars.append(contentsOf: printable.prefix(limit))
    return result
}

/// See ``sanitizedExcerpt(_:)``.
func sanitizedExcerpt(_ text: some StringProtocol) -> String { sanitizedExcerpt(text.utf8) }

/// The ASCII lower-case hexadecimal digit of a value under 16.
@inline(__always)
func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 &+ nibble : 0x57 &+ nibble }

/// The value of an ASCII hexadecimal digit of either case, nil for any other byte.
@inline(__always)
func hexValue(_ digit: UInt8) -> UInt8? {
    switch digit {
    case 0x30...0x39: digit &- 0x30
    case 0x41...0x46: digit &- 0x37
    case 0x61...0x66: digit &- 0x57
    default: nil
    }
}

/// ASCII classes used by the grammars of digests, names, tags and hosts.
extension UInt8 {
    @inline(__always) var isDigit: Bool { self >= 0x30 && self <= 0x39 }
    @inline(__always) var isLowercase: Bool { self >= 0x61 && self <= 0x7A }
    @inline(__always) var isUppercase: Bool { self >= 0x41 && self <= 0x5A }
    @inline(__always) var isLetter: Bool { isLowercase || isUppercase }
    @inline(__always) var isAlphanumeric: Bool { isDigit || isLetter }
}

/// Percent-encoding (RFC 3986 §2.1) over UTF-8.
package enum PercentEncoding {
    /// Decodes `bytes` into `target`, which must have room for as many, and returns the number of bytes written; nil when
    /// a `%` is not followed by two hexadecimal digits.
    static func decode(_ bytes: UnsafeBufferPointer<UInt8>, into target: UnsafeMutableBufferPointer<UInt8>) -> Int? {
        var count = 0
        var index = 0
        while index < bytes.count {
            var byte = bytes[index]
            index += 1
            if byte == 0x25 {
                guard index + 1 < bytes.count, let high = hexValue(bytes[index]), let low = hexValue(bytes[index + 1])
                else { return nil }
                byte = high << 4 | low
                index += 2
            }
            target[count] = byte
            count += 1
        }
        return count
    }

    /// Calls `body` with the decoded bytes, or with nil when they are malformed; bytes without `%` are not copied.
    package static func withDecoded<Value>(
        _ bytes: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>?) -> Value
    ) -> Value {
        guard bytes.contains(0x25) else { return body(bytes) }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: bytes.count) { target in
            guard let count = decode(bytes, into: target) else { return body(nil) }
            return body(UnsafeBufferPointer(rebasing: target[..<count]))
        }
    }

    /// Appends `text`, encoding what is not unreserved nor in `allowed`.
    static func append(_ text: String, allowing allowed: StaticString, to target: inout [UInt8]) {
        for byte in text.utf8 {
            let isUnreserved = byte.isAlphanumeric || byte == 0x2D || byte == 0x2E || byte == 0x5F || byte == 0x7E
            if isUnreserved
                || UnsafeBufferPointer(start: allowed.utf8Start, count: allowed.utf8CodeUnitCount).contains(byte)
            {
                target.append(byte)
            } else {
                target += [0x25, upperHexDigit(byte >> 4), upperHexDigit(byte & 0xF)]
            }
        }
    }

    private static func upperHexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x37 + nibble }
}
