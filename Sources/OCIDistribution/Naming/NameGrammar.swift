/// The grammars of repository names and tags (OCI distribution specification, "Pulling manifests"), over UTF-8 and
/// without allocation, as they are checked on every request.
enum NameGrammar {
    /// Host, slash and repository together: what clients limit names to.
    static let maximumNameLength = 255

    /// The largest tag.
    static let maximumTagLength = 128

    /// What is wrong with a repository name, nil when nothing is:
    /// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
    static func repositoryError(_ bytes: UnsafeBufferPointer<UInt8>) -> StaticString? {
        if bytes.isEmpty { return "the repository name is empty" }
        if bytes.count > maximumNameLength { return "the repository name is longer than 255 bytes" }
        // The separator run before the current byte: its byte and length; a slash and the start are runs of their own.
        var separator: UInt8 = 0x2F
        var run = 1
        for byte in bytes {
            if byte.isLowercase || byte.isDigit {
                run = 0
                continue
            }
            switch byte {
            case 0x2F:
                if run > 0 {
                    return separator == 0x2F
                        ? "the repository name has an empty component" : "a component must end with [a-z0-9]"
                }
                run = 1
            case 0x2E, 0x5F, 0x2D:
                if run > 0, separator == 0x2F { return "a component must begin with [a-z0-9]" }
                if run > 0 {
                    let mayRepeat = byte == separator && (byte == 0x2D || byte == 0x5F && run == 1)
                    if !mayRepeat { return "separators are one of '.', '_', '__' or any number of '-'" }
                }
                run += 1
            default:
                return byte.isUppercase
                    ? "the repository name must be lower case" : "the repository name may hold only [a-z0-9._/-]"
            }
            separator = byte
        }
        if run > 0 {
            return separator == 0x2F
                ? "the repository name has an empty component" : "a component must end with [a-z0-9]"
        }
        return nil
    }

    /// What is wrong with a tag, nil when nothing is: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    static func tagError(_ bytes: UnsafeBufferPointer<UInt8>) -> StaticString? {
        guard let first = bytes.first else { return "the tag is empty" }
        if bytes.count > maximumTagLength { return "the tag is longer than 128 bytes" }
        if !(first.isAlphanumeric || first == 0x5F) { return "a tag must begin with [a-zA-Z0-9_]" }
        let isValid = bytes.allSatisfy { $0.isAlphanumeric || $0 == 0x5F || $0 == 0x2E || $0 == 0x2D }
        return isValid ? nil : "a tag may hold only [a-zA-Z0-9._-]"
    }
}
