import PeerRouting

/// Reads networks.
enum NetworkOption {
    /// The transform of the option.
    @Sendable static func parse(_ text: String) throws -> IPNetwork {
        guard let network = IPNetwork(text) else { throw OptionError("a network such as 10.0.0.0/8 or fd00::/8") }
        return network
    }
}
