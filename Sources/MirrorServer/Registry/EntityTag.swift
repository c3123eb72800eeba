import OCIDistribution

/// The entity tag of content: its digest in quotes (RFC 9110 §8.8.3).
enum EntityTag {
    /// Whether an `If-None-Match` field names the content, so that it is answered `304` (RFC 9110 §13.1.2). Weak tags compare
    /// equal to strong ones.
    static func ifNoneMatch(_ field: String, names digest: Digest) -> Bool {
        if field == "*" { return true }
        let tag = "\"\(digest)\""
        return field.split(separator: ",").contains { entry in
            var entry = entry.drop { $0 == " " || $0 == "\t" }
            while entry.last == " " || entry.last == "\t" { entry.removeLast() }
            if entry.hasPrefix("W/") { entry = entry.dropFirst(2) }
            return entry == tag
        }
    }
}
