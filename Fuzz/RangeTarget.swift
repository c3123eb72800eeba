import OCIDistribution

/// `Range` and `Content-Range` headers: what resolves lies within the content.
func fuzzRange(_ input: UnsafeBufferPointer<UInt8>) {
    if let range = try? ByteRange.parse(utf8: input) {
        require((try? ByteRange.parse(range.description)) == range, "a range prints differently")
        for size in [0, 1, 100, 1 << 40, Int64.max] {
            guard let resolved = try? range.resolve(size: size) else { continue }
            let isInside = !resolved.isEmpty && resolved.lowerBound >= 0 && resolved.upperBound <= size
            require(isInside, "a range lies outside the content")
        }
    }
    if let range = try? ContentRange(parsing: String(decoding: input, as: UTF8.self)) {
        require((try? ContentRange(parsing: range.description)) == range, "a content range prints differently")
    }
}
