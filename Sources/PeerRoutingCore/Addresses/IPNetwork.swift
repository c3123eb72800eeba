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
