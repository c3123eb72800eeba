/// One range of a `Range` header (RFC 9110 §14.1.2), before the size of the content is known.
public enum ByteRange: Sendable, Hashable {
    /// `first-last`, both inclusive offsets in bytes.
    case bounded(first: Int64, last: Int64)
    /// `first-`, to the end.
    case from(Int64)
    /// `-length`, the last bytes.
    case suffix(Int64)

    /// Parses the value of a `Range` header.
    ///
    /// Numbers beyond 64 bits are taken for the largest one, which no content reaches.
    ///
    /// - Returns: nil for a unit other than `bytes`, which RFC 9110 §14.2 has a server ignore: the whole content is served.
    /// - Throws: ``ByteRangeError/multiple(input:)`` for a list of ranges, else ``ByteRangeError/malformed(input:)``.
    @inlinable
    public static func parse(_ header: some StringProtocol) throws(ByteRangeError) -> ByteRange? {
        try withUTF8(of: header) { (bytes) throws(ByteRangeError) in try parse(utf8: bytes) }
    }

    /// Parses the UTF-8 of a `Range` header; see ``parse(_:)``.
    public static func parse(utf8 header: UnsafeBufferPointer<UInt8>) throws(ByteRangeError) -> ByteRange? {
        guard let equals = header.firstIndex(of: 0x3D) else { throw .malformed(input: sanitizedExcerpt(header)) }
        let unit = trimmed(header[..<equals])
        guard !unit.isEmpty else { throw .malformed(input: sanitizedExcerpt(header)) }
        // Units are case-insensitive.
        guard unit.count == 5, zip(unit, "bytes".utf8).allSatisfy({ $0 | 0x20 == $1 }) else { return nil }
        // Empty elements of a list do not count (RFC 9110 §5.6.1.2).
        var set = header[header.count...]
        for element in header[(equals + 1)...].split(separator: 0x2C) {
            let range = trimmed(element)
            if range.isEmpty { continue }
            guard set.isEmpty else { throw .multiple(input: sanitizedExcerpt(header)) }
            set = range
        }
        guard let dash = set.firstIndex(of: 0x2D) else { throw .malformed(input: sanitizedExcerpt(header)) }
        let before = set[..<dash]
        let after = set[(dash + 1)...]
        switch (before.isEmpty, after.isEmpty) {
        case (false, false):
            if let first = number(before), let last = number(after), first <= last {
                return .bounded(first: first, last: last)
            }
        case (false, true): if let first = number(before) { return .from(first) }
        case (true, false): if let length = number(after) { return .suffix(length) }
        case (true, true): break
        }
        throw .malformed(input: sanitizedExcerpt(header))
    }

    /// The bytes that the range selects of content of `size` bytes, never empty.
    ///
    /// - Throws: ``ByteRangeError/unsatisfiable(size:)`` when it begins at or after the end, or is a suffix of no bytes.
    ///   Every range of empty content is unsatisfiable, as a 206 answer cannot describe zero bytes.
    public func resolve(size: Int64) throws(ByteRangeError) -> Range<Int64> {
        switch self {
        case .bounded(let first, let last):
            guard first >= 0, first <= last, first < size else { throw .unsatisfiable(size: size) }
            return first..<(last < size ? last + 1 : size)
        case .from(let first):
            guard first >= 0, first < size else { throw .unsatisfiable(size: size) }
            return first..<size
        case .suffix(let length):
            guard length > 0, size > 0 else { throw .unsatisfiable(size: size) }
            return (length < size ? size - length : 0)..<size
        }
    }

    @inline(__always)
    static func trimmed(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> Slice<UnsafeBufferPointer<UInt8>> {
        var bytes = bytes
        while let byte = bytes.first, byte == 0x20 || byte == 0x09 { bytes.removeFirst() }
        while let byte = bytes.last, byte == 0x20 || byte == 0x09 { bytes.removeLast() }
        return bytes
    }

    /// One or more digits; what does not fit is the largest number.
    @inline(__always)
    static func number(_ digits: Slice<UnsafeBufferPointer<UInt8>>) -> Int64? {
        if digits.isEmpty { return nil }
        var value: Int64 = 0
        for byte in digits {
            guard byte.isDigit else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(Int64(byte &- 0x30))
            value = overflow || carry ? .max : sum
        }
        return value
    }
}

extension ByteRange: CustomStringConvertible {
    /// The range as the value of a `Range` header.
    public var description: String {
        switch self {
        case .bounded(let first, let last): "bytes=\(first)-\(last)"
        case .from(let first): "bytes=\(first)-"
        case .suffix(let length): "bytes=-\(length)"
        }
    }
}

/// Why a range cannot be served.
public enum ByteRangeError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Not the value of a `Range` or `Content-Range` header.
    case malformed(input: String)
    /// More than one range, which is not supported.
    case multiple(input: String)
    /// Outside the content, whose size in bytes is given.
    case unsatisfiable(size: Int64)

    /// A sentence naming the input and what is wrong with it.
    public var description: String {
        switch self {
        case .malformed(let input): "malformed range \(input)"
        case .multiple(let input): "multiple ranges are not supported: \(input)"
        case .unsatisfiable(let size): "the range is outside the content of \(size) bytes"
        }
    }

    /// The error to report: 416 when the range is outside the content (with ``ContentRange/unsatisfied(size:)`` as the
    /// `Content-Range` header), else 400.
    public var distributionError: DistributionError {
        if case .unsatisfiable = self {
            return DistributionError(.rangeInvalid, message: description, httpStatus: 416)
        }
        return DistributionError(.rangeInvalid, message: description)
    }
}

/// The value of a `Content-Range` header in bytes (RFC 9110 §14.4).
public enum ContentRange: Sendable, Hashable {
    /// `bytes first-last/size`, of a 206 answer; the range is never empty when parsed. `size` is nil where the answer
    /// has `*` for it.
    case satisfied(Range<Int64>, size: Int64?)
    /// `bytes */size`, of a 416 answer.
    case unsatisfied(size: Int64)

    /// Parses the value of a `Content-Range` header.
    ///
    /// - Throws: ``ByteRangeError/malformed(input:)`` for another unit, a range that ends before it begins or beyond the
    ///   size, and numbers beyond 64 bits.
    public init(parsing header: some StringProtocol) throws(ByteRangeError) {
        self = try withUTF8(of: header) { (bytes) throws(ByteRangeError) in try ContentRange(bytes) }
    }

    private init(_ bytes: UnsafeBufferPointer<UInt8>) throws(ByteRangeError) {
        func malformed() -> ByteRangeError { .malformed(input: sanitizedExcerpt(bytes)) }
        /// A number that fits, with room for the end of a range.
        func number(_ digits: Slice<UnsafeBufferPointer<UInt8>>) -> Int64? {
            ByteRange.number(digits).flatMap { $0 == .max ? nil : $0 }
        }
        let value = ByteRange.trimmed(bytes[...])
        let unit = value.prefix { $0 != 0x20 }
        guard unit.count == 5, zip(unit, "bytes".utf8).allSatisfy({ $0 | 0x20 == $1 }) else { throw malformed() }
        let rest = ByteRange.trimmed(value[unit.endIndex...])
        guard let slash = rest.firstIndex(of: 0x2F) else { throw malformed() }
        let range = rest[..<slash]
        let total = rest[(slash + 1)...]
        let isUnknown = total.elementsEqual([0x2A])
        let size = isUnknown ? nil : number(total)
        if !isUnknown, size == nil { throw malformed() }
        if range.elementsEqual([0x2A]) {
            guard let size else { throw malformed() }
            self = .unsatisfied(size: size)
            return
        }
        guard let dash = range.firstIndex(of: 0x2D),
            let first = number(range[..<dash]), let last = number(range[(dash + 1)...]),
            first <= last, last < size ?? .max
        else { throw malformed() }
        self = .satisfied(first..<(last + 1), size: size)
    }
}

extension ContentRange: CustomStringConvertible {
    /// The value of the header.
    public var description: String {
        switch self {
        case .satisfied(let range, let size):
            "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size.map(String.init) ?? "*")"
        case .unsatisfied(let size): "bytes */\(size)"
        }
    }
}
