extension AddressPolicy {
    /// `message` with the acceptable addresses only.
    ///
    /// - Parameters:
    ///   - message: What another peer sent.
    ///   - remote: The address its connection comes from.
    func filter(_ message: KadMessage, from remote: IPAddress?) -> KadMessage {
        var result = message
        for index in result.closerPeers.indices {
            result.closerPeers[index].addresses = filter(result.closerPeers[index].addresses)
        }
        let observed = requiresObservedAddress && message.kind == .addProvider ? remote : nil
        for index in result.providerPeers.indices {
            result.providerPeers[index].addresses = filter(result.providerPeers[index].addresses, observed: observed)
        }
        return result
    }
}
