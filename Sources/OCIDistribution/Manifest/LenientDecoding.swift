/// Optional fields of other people's JSON: what is null or of another type counts as absent.
extension KeyedDecodingContainer {
    func lenient<Value: Decodable>(_ key: Key, as type: Value.Type = Value.self) -> Value? {
        (try? decodeIfPresent(Value.self, forKey: key)) ?? nil
    }

    /// A map of strings; entries with other values are left out.
    func lenientStrings(_ key: Key) -> [String: String]? {
        lenient(key, as: [String: Lenient<String>].self)?.compactMapValues(\.value)
    }

    /// Whether a key is there and its value is null.
    func isNull(_ key: Key) -> Bool {
        contains(key) && (try? decodeNil(forKey: key)) == true
    }

    /// A list that must be there, of at most `limit` elements; null is an empty one, as Go writes it.
    func bounded<Element: Decodable>(_ key: Key, limit: Int) throws -> [Element] {
        if isNull(key) { return [] }
        var list = try nestedUnkeyedContainer(forKey: key)
        var elements: [Element] = []
        while !list.isAtEnd {
            guard elements.count < limit else {
                throw DecodingError.dataCorruptedError(
                    forKey: key, in: self, debugDescription: "more than \(limit) elements")
            }
            elements.append(try list.decode(Element.self))
        }
        return elements
    }
}

/// A value, or nil when it is of another type.
private struct Lenient<Value: Decodable>: Decodable {
    let value: Value?

    init(from decoder: any Decoder) throws {
        value = try? decoder.singleValueContainer().decode(Value.self)
    }
}
