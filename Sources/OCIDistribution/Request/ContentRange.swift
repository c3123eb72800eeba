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
        func malformed() -> ByteRangeError { .malformed(input: excerpt(bytes)) }
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
