@testable import PeerRouting

/// Messages of the DHT: what is taken from one is limited, whatever its length, and reads the same when sent on.
func fuzzKademlia(_ input: UnsafeBufferPointer<UInt8>) {
    guard let message = try? KadMessage(decoding: Array(input)) else { return }
    require(message.closerPeers.count <= KadMessage.Limits.closerPeers, "too many closer peers")
    require(message.providerPeers.count <= KadMessage.Limits.providerPeers, "too many providers")
    for contact in message.closerPeers + message.providerPeers {
        require(contact.addresses.count <= KadMessage.Limits.addressesPerPeer, "too many addresses")
    }
    let encoded = message.encoded()
    require((try? KadMessage(decoding: encoded)) == message, "the message differs when sent on")
    let filtered = AddressPolicy().filter(message, from: nil)
    for contact in filtered.closerPeers + filtered.providerPeers {
        for address in contact.addresses {
            guard let ip = address.ipAddress else { fail("\(address) is not an IP address") }
            require(!ip.isLoopback && !ip.isUnspecified && !ip.isMulticast && !ip.isLinkLocal, "\(address) is accepted")
        }
    }
}
