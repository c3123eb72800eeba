/// The grammar of a registry's host, used wherever one is parsed: a name, an IPv4 address or an IPv6 address in brackets,
/// and an optional port.
///
/// A name is a DNS name (RFC 1123) whose labels may have underscores between their first and last character: container
/// networks have such names (`my_registry:5000`), and containerd accepts them. A label never begins with one, so that
/// `_default`, the wildcard of containerd's configuration, is not a host.
package enum RegistryHost {
    /// What is wrong with a host, nil when it is valid.
    package static func validationError(in text: some StringProtocol) -> String? {
        withUTF8(of: text) { validationError($0).map { "\($0)" } }
    }

    /// Whether the first component of a name is a registry and not part of the repository, by the rule of all clients: it
    /// has a dot or a colon, or is `localhost`.
    static func isRegistry(_ component: UnsafeBufferPointer<UInt8>) -> Bool {
        component.contains { $0 == 0x2E || $0 == 0x3A } || component.elementsEqual("localhost".utf8)
    }

    /// The canonical spelling of a registry's host, under which names are stored: lower case, without the port of HTTPS, and
    /// `docker.io` for the names under which Docker Hub is reached.
    package static func canonical(_ host: String) -> String {
        var host = host.lowercased()
        if host.hasSuffix(":443") { host.removeLast(4) }
        return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host
    }

    /// What is wrong with a host, nil when it is valid.
    static func validationError(_ bytes: UnsafeBufferPointer<UInt8>) -> StaticString? {
        guard let first = bytes.first else { return "the registry is empty" }
        if bytes.count > NameGrammar.maximumNameLength { return "the registry is longer than 255 bytes" }
        let hostEnd: Int
        if first == 0x5B {
            guard let close = bytes.firstIndex(of: 0x5D) else { return "the registry has no closing bracket" }
            guard isIPv6(UnsafeBufferPointer(rebasing: bytes[1..<close])) else {
                return "the brackets of the registry must hold an IPv6 address"
            }
            hostEnd = close + 1
        } else {
            hostEnd = bytes.firstIndex(of: 0x3A) ?? bytes.count
            if let reason = nameError(UnsafeBufferPointer(rebasing: bytes[..<hostEnd])) { return reason }
        }
        if hostEnd == bytes.count { return nil }
        guard bytes[hostEnd] == 0x3A else { return "the registry has text after its closing bracket" }
        return isPort(bytes[(hostEnd + 1)...]) ? nil : "the port of the registry must be from 1 to 65535"
    }

    private static func isPort(_ digits: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        guard (1...5).contains(digits.count), digits.allSatisfy(\.isDigit) else { return false }
        let value = digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
        return (1...65535).contains(value)
    }

    /// A name or, when its last label is a number, an IPv4 address.
    private static func nameError(_ bytes: UnsafeBufferPointer<UInt8>) -> StaticString? {
        /// A byte that may stand inside a label only: `-` or `_`.
        func isSeparator(_ byte: UInt8) -> Bool { byte == 0x2D || byte == 0x5F }
        if bytes.isEmpty { return "the registry has no host" }
        if bytes.count > 253 { return "the host of the registry is longer than 253 bytes" }
        var length = 0
        var isNumber = true
        var previous: UInt8 = 0x2E
        for byte in bytes {
            if byte == 0x2E {
                if length == 0 || isSeparator(previous) { return "the registry is not a host name" }
                length = 0
                isNumber = true
            } else {
                guard byte.isAlphanumeric || isSeparator(byte) && length > 0 else {
                    return "the registry is not a host name"
                }
                length += 1
                if length > 63 { return "a label of the registry is longer than 63 bytes" }
                isNumber = isNumber && byte.isDigit
            }
            previous = byte
        }
        if length == 0 || isSeparator(previous) { return "the registry is not a host name" }
        if isNumber, !isIPv4(bytes[...]) { return "the registry is not an IPv4 address" }
        return nil
    }

    /// Four decimal numbers up to 255 without leading zeros.
    static func isIPv4(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        var parts = 0
        for part in bytes.split(separator: 0x2E, omittingEmptySubsequences: false) {
            parts += 1
            guard parts <= 4, (1...3).contains(part.count), part.allSatisfy(\.isDigit) else { return false }
            if part.count > 1, part.first == 0x30 { return false }
            if part.reduce(0, { $0 * 10 + Int($1 - 0x30) }) > 255 { return false }
        }
        return parts == 4
    }

    /// An IPv6 address (RFC 4291 §2.2), without a zone.
    static func isIPv6(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard (2...45).contains(bytes.count) else { return false }
        var groups = 0
        var sawGap = false
        var index = 0
        while index < bytes.count {
            if bytes[index] == 0x3A {
                // A colon separates two groups; the gap is two of them, once, and may be at either end.
                let isGap = index + 1 < bytes.count && bytes[index + 1] == 0x3A
                if isGap {
                    if sawGap { return false }
                    sawGap = true
                    index += 2
                    if index < bytes.count, bytes[index] == 0x3A { return false }
                    continue
                }
                if index == 0 || index + 1 == bytes.count { return false }
                index += 1
                continue
            }
            let end = bytes[index...].firstIndex(of: 0x3A) ?? bytes.count
            let group = bytes[index..<end]
            if end == bytes.count, group.contains(0x2E) {
                guard isIPv4(group) else { return false }
                groups += 2
            } else {
                guard group.count <= 4, group.allSatisfy({ hexValue($0) != nil }) else { return false }
                groups += 1
            }
            index = end
        }
        return sawGap ? groups <= 7 : groups == 8
    }
}
