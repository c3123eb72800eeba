import PeerRoutingCore

/// Multiaddrs and peer IDs, in binary and as text: what parses prints and parses back.
func fuzzMultiaddr(_ input: UnsafeBufferPointer<UInt8>) {
    let text = String(decoding: input, as: UTF8.self)
    for address in [try? Multiaddr(bytes: input), try? Multiaddr(parsing: text)] {
        guard let address else { continue }
        require((try? Multiaddr(bytes: address.bytes)) == address, "the bytes of an address differ")
        require(Multiaddr(address.description) == address, "the text of an address differs: \(address)")
    }
    for peer in [try? PeerID(bytes: input), try? PeerID(parsing: text)] {
        guard let peer else { continue }
        require(PeerID(peer.description) == peer, "the text of a peer ID differs: \(peer)")
    }
}
