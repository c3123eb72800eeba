import NIOCore

/// An IPv4 or IPv6 address, without port or zone.
public enum IPAddress: Hashable, Sendable {
    /// The four bytes as a number, first byte highest.
    case v4(UInt32)
    /// The sixteen bytes as two numbers, first byte highest.
    case v6(high: UInt64, low: UInt64)

    /// 127.0.0.1
    public static let loopbackV4 = IPAddress.v4(0x7f00_0001)
    /// ::1
    public static let loopbackV6 = IPAddress.v6(high: 0, low: 1)
    /// 0.0.0.0
    public static let anyV4 = IPAddress.v4(0)
    /// ::
    public static let anyV6 = IPAddress.v6(high: 0, low: 0)

    /// An address from its 4 or 16 bytes in network order; nil for any other count.
    public init?(bytes: some Collection<UInt8>) {
        switch bytes.count {
        case 4:
            self = .v4(bytes.reduce(0) { $0 << 8 | UInt32($1) })
        case 16:
            self = .v6(
                high: bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) },
                low: bytes.dropFirst(8).reduce(0) { $0 << 8 | UInt64($1) })
        default:
            return nil
        }
    }

    /// The address part of a socket address; nil for Unix sockets.
    public init?(_ address: SocketAddress) {
        // The address follows family and port (4 bytes in), in IPv6 also the flow label (8 bytes in).
        switch address {
        case .v4(let v4):
            guard let address = withUnsafeBytes(of: v4.address, { IPAddress(bytes: $0[4..<8]) }) else { return nil }
            self = address
        case .v6(let v6):
            guard let address = withUnsafeBytes(of: v6.address, { IPAddress(bytes: $0[8..<24]) }) else { return nil }
            self = address
        case .unixDomainSocket:
            return nil
        }
    }

    /// The 4 or 16 bytes in network order.
    public var bytes: [UInt8] {
        switch self {
        case .v4(let value):
            return (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) }
        case .v6(let high, let low):
            return [high, low].flatMap { half in
                (0..<8).map { UInt8(truncatingIfNeeded: half >> UInt64(56 - 8 * $0)) }
            }
        }
    }

    /// True for IPv6, IPv4-mapped addresses (`::ffff:a.b.c.d`) included.
    public var isV6: Bool {
        if case .v6 = self { return true }
        return false
    }

    /// The IPv4 address inside an IPv4-mapped IPv6 one; any other address as it is.
    public var unmapped: IPAddress {
        if case .v6(0, let low) = self, low >> 32 == 0xffff { return .v4(UInt32(truncatingIfNeeded: low)) }
        return self
    }
}

extension IPAddress {
    /// 127.0.0.0/8 and ::1. Like all of these questions, an IPv4-mapped address is judged as the IPv4 one.
    public var isLoopback: Bool {
        switch unmapped {
        case .v4(let value): value >> 24 == 127
        case .v6(let high, let low): high == 0 && low == 1
        }
    }

    /// 0.0.0.0 and ::
    public var isUnspecified: Bool {
        switch unmapped {
        case .v4(let value): value == 0
        case .v6(let high, let low): high == 0 && low == 0
        }
    }

    /// 169.254.0.0/16 and fe80::/10
    public var isLinkLocal: Bool {
        switch unmapped {
        case .v4(let value): value >> 16 == 0xa9fe
        case .v6(let high, _): high >> 54 == 0x3fa
        }
    }

    /// 224.0.0.0/4 and ff00::/8
    public var isMulticast: Bool {
        switch unmapped {
        case .v4(let value): value >> 28 == 0xe
        case .v6(let high, _): high >> 56 == 0xff
        }
    }

    /// 255.255.255.255
    public var isBroadcast: Bool {
        unmapped == .v4(.max)
    }

    /// Addresses for use inside a site: RFC 1918 networks, the shared space 100.64.0.0/10 (RFC 6598), and fc00::/7.
    public var isPrivate: Bool {
        switch unmapped {
        case .v4(let value):
            value >> 24 == 10 || value >> 20 == 0xac1 || value >> 16 == 0xc0a8 || value >> 22 == 0x191
        case .v6(let high, _):
            high >> 57 == 0x7e
        }
    }
}

extension IPAddress {
    /// What limits per source count as one: the address, or for IPv6 its /64, which one host may have whole.
    package var source: IPAddress {
        if case .v6(let high, _) = unmapped { return .v6(high: high, low: 0) }
        return unmapped
    }

    /// The source for limits that several nodes of one machine must not share: nil for loopback, where a machine's own
    /// nodes are, as in demonstrations and tests.
    package var limitedSource: IPAddress? { isLoopback ? nil : source }
}

extension IPAddress: LosslessStringConvertible {
    /// Parses dotted decimal (four numbers, no leading zeros) or any RFC 4291 form of IPv6; no zone, no port.
    public init?(_ text: some StringProtocol) {
        if text.utf8.contains(UInt8(ascii: ":")) {
            guard let groups = Self.parseV6(text) else { return nil }
            self = .v6(
                high: groups.prefix(4).reduce(0) { $0 << 16 | UInt64($1) },
                low: groups.suffix(4).reduce(0) { $0 << 16 | UInt64($1) })
        } else {
            guard let value = Self.parseV4(text) else { return nil }
            self = .v4(value)
        }
    }

    /// Parses like the initializer for any text; LosslessStringConvertible asks for this very signature.
    public init?(_ description: String) {
        self.init(description[...])
    }

    /// Dotted decimal, or the RFC 5952 form of IPv6.
    public var description: String {
        switch self {
        case .v4(let value):
            return "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)"
        case .v6(let high, let low):
            if case .v4 = unmapped { return "::ffff:\(unmapped)" }
            let groups = [high, low].flatMap { half in
                (0..<4).map { UInt16(truncatingIfNeeded: half >> (48 - 16 * $0)) }
            }
            return Self.format(groups)
        }
    }

    private static func parseV4(_ text: some StringProtocol) -> UInt32? {
        guard text.utf8.count <= 15 else { return nil }
        let parts = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.count == 1 || part.first != UInt8(ascii: "0") else { return nil }
            var number: UInt32 = 0
            for digit in part {
                guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
                number = number * 10 + UInt32(digit - UInt8(ascii: "0"))
            }
            guard number <= 255 else { return nil }
            value = value << 8 | number
        }
        return value
    }

    private static func parseV6(_ text: some StringProtocol) -> [UInt16]? {
        guard text.utf8.count <= 45 else { return nil }
        let string = String(text)
        guard let gap = string.firstRange(of: "::") else {
            guard let groups = parseGroups(string[...]), groups.count == 8 else { return nil }
            return groups
        }
        let tail = string[gap.upperBound...]
        // "1:::2" would otherwise leave ":2", whose empty group parseGroups refuses; a second "::" likewise.
        guard let before = parseGroups(string[..<gap.lowerBound], embeddedV4Allowed: false),
            let after = parseGroups(tail), before.count + after.count <= 7
        else { return nil }
        return before + [UInt16](repeating: 0, count: 8 - before.count - after.count) + after
    }

    private static func parseGroups(_ text: Substring, embeddedV4Allowed: Bool = true) -> [UInt16]? {
        guard !text.isEmpty else { return [] }
        var groups: [UInt16] = []
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        for (index, part) in parts.enumerated() {
            if part.utf8.contains(UInt8(ascii: ".")) {
                guard embeddedV4Allowed, index == parts.count - 1, let value = parseV4(part) else { return nil }
                groups.append(UInt16(value >> 16))
                groups.append(UInt16(value & 0xffff))
            } else {
                guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy({ isHexDigit($0) }),
                    let group = UInt16(part, radix: 16)
                else { return nil }
                groups.append(group)
            }
        }
        return groups
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }

    /// The longest run of two or more zero groups, the first among equals, becomes "::".
    private static func format(_ groups: [UInt16]) -> String {
        var best = 0..<0
        var index = 0
        while index < groups.count {
            var end = index
            while end < groups.count, groups[end] == 0 { end += 1 }
            if end - index > max(best.count, 1) { best = index..<end }
            index = max(end, index + 1)
        }
        func hex(_ part: ArraySlice<UInt16>) -> String {
            part.map { String($0, radix: 16) }.joined(separator: ":")
        }
        guard !best.isEmpty else { return hex(groups[...]) }
        return hex(groups[..<best.lowerBound]) + "::" + hex(groups[best.upperBound...])
    }
}

extension IPAddress: Comparable {
    /// IPv4 before IPv6, then by number.
    public static func < (left: IPAddress, right: IPAddress) -> Bool {
        switch (left, right) {
        case (.v4(let a), .v4(let b)): a < b
        case (.v6(let a, let b), .v6(let c, let d)): (a, b) < (c, d)
        case (.v4, .v6): true
        case (.v6, .v4): false
        }
    }
}

extension IPAddress: Codable {
    /// Decodes the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let address = IPAddress(text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not an IP address: \(WireFormatError.quote(text))")
        }
        self = address
    }

    /// Encodes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// A range of addresses in CIDR form, such as `10.0.0.0/8` or `fd00::/8`.
public struct IPNetwork: Hashable, Sendable, LosslessStringConvertible {
    /// The lowest address, host bits cleared.
    public let address: IPAddress
    /// Leading bits that must agree: 0 to 32, or to 128 for IPv6.
    public let prefixLength: Int

    /// A network of the given size around an address; nil when the length is out of range.
    public init?(_ address: IPAddress, prefixLength: Int) {
        switch address {
        case .v4(let value):
            guard (0...32).contains(prefixLength) else { return nil }
            self.address = .v4(value & Self.mask32(prefixLength))
        case .v6(let high, let low):
            guard (0...128).contains(prefixLength) else { return nil }
            self.address = .v6(
                high: high & Self.mask64(prefixLength), low: low & Self.mask64(max(0, prefixLength - 64)))
        }
        self.prefixLength = prefixLength
    }

    /// Parses `address/length`; a plain address is the network of it alone.
    public init?(_ description: String) {
        let parts = description.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let address = IPAddress(first) else { return nil }
        guard parts.count == 2 else {
            self.init(address, prefixLength: address.isV6 ? 128 : 32)
            return
        }
        guard (1...3).contains(parts[1].utf8.count), parts[1].utf8.allSatisfy({ (48...57).contains($0) }),
            let length = Int(parts[1])
        else { return nil }
        self.init(address, prefixLength: length)
    }

    /// `address/length`.
    public var description: String { "\(address)/\(prefixLength)" }

    /// Whether the address, unmapped when it is IPv4 inside IPv6, lies in this network.
    public func contains(_ candidate: IPAddress) -> Bool {
        switch (address, candidate.unmapped) {
        case (.v4(let network), .v4(let value)):
            value & Self.mask32(prefixLength) == network
        case (.v6(let networkHigh, let networkLow), .v6(let high, let low)):
            high & Self.mask64(prefixLength) == networkHigh
                && low & Self.mask64(max(0, prefixLength - 64)) == networkLow
        default:
            false
        }
    }

    private static func mask32(_ length: Int) -> UInt32 {
        length <= 0 ? 0 : ~UInt32(0) << UInt32(32 - min(length, 32))
    }

    private static func mask64(_ length: Int) -> UInt64 {
        length <= 0 ? 0 : ~UInt64(0) << UInt64(64 - min(length, 64))
    }
}
