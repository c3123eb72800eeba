/// Percent-encoding (RFC 3986 §2.1) over UTF-8.
enum PercentEncoding {
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
    static func withDecoded<Value>(
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
