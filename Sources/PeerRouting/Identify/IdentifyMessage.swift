/// What a peer tells about itself: protocols spoken, addresses to dial.
/// See https://github.com/libp2p/specs/tree/master/identify
struct IdentifyMessage: Equatable, Sendable {
    static let protocolID = "/ipfs/id/1.0.0"
    static let pushProtocolID = "/ipfs/id/push/1.0.0"
    /// Longest name or version kept, in bytes.
    static let maximumTextLength = 256
    /// Longest message of ours, in bytes: what every implementation reads as one (Go refuses more than 8 KiB).
    static let maximumLength = 4 << 10
    /// Most addresses in a message of ours: what peers keep.
    static let maximumAddresses = 64

    /// The protobuf form of the sender's key; the handshake is the authority, this only a claim.
    var publicKey: [UInt8]?
    var listenAddresses: [Multiaddr] = []
    var protocols: [String] = []
    /// The receiver's address as the sender sees it.
    var observedAddress: Multiaddr?
    var protocolVersion = ""
    var agentVersion = ""

    var encoded: [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 512)
        if let publicKey { writer.bytes(1, publicKey) }
        for address in listenAddresses { writer.bytes(2, address.bytes) }
        for name in protocols { writer.string(3, name) }
        if let observedAddress { writer.bytes(4, observedAddress.bytes) }
        writer.string(5, protocolVersion)
        writer.string(6, agentVersion)
        return writer.bytes
    }

    /// The first of the addresses, as many as may be told in one message.
    ///
    /// - Parameter room: Bytes the message has for them.
    static func fitting(_ addresses: [Multiaddr], room: Int) -> [Multiaddr] {
        var left = room
        return Array(
            addresses.prefix(maximumAddresses).prefix { address in
                var writer = ProtobufWriter(reservingCapacity: address.bytes.count + 4)
                writer.bytes(2, address.bytes)
                left -= writer.bytes.count
                return left >= 0
            })
    }

    /// Adds one message of an answer that may come in several: lists grow up to their bounds, the rest is replaced.
    ///
    /// An address that cannot be parsed is left out; it says nothing about the others.
    mutating func merge(
        parsing bytes: [UInt8], maximumAddresses: Int, maximumProtocols: Int
    ) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            guard case .bytes(let value) = field.value else { continue }
            switch field.number {
            case 1: publicKey = Array(value)
            case 2:
                if listenAddresses.count < maximumAddresses, let address = try? Multiaddr(bytes: value) {
                    listenAddresses.append(address)
                }
            case 3:
                let name = try ProtobufReader.string(value)
                if protocols.count < maximumProtocols, name.utf8.count < MultistreamToken.maximumLength {
                    protocols.append(name)
                }
            case 4: observedAddress = try? Multiaddr(bytes: value)
            case 5: protocolVersion = String(decoding: value.prefix(Self.maximumTextLength), as: UTF8.self)
            case 6: agentVersion = String(decoding: value.prefix(Self.maximumTextLength), as: UTF8.self)
            default: break
            }
        }
    }

    /// The addresses that can mean this peer to somebody who reached it at `remote`: those of another peer and those
    /// whose reach is smaller than the connection's are left out.
    func usableAddresses(of peer: PeerID, remote: IPAddress, allowLoopback: Bool) -> [Multiaddr] {
        var seen: Set<Multiaddr> = []
        return listenAddresses.compactMap { $0.strippingPeerID(peer) }.filter { address in
            guard let endpoint = address.tcpEndpoint, endpoint.zone == nil, endpoint.port != 0 else { return false }
            let ip = endpoint.address
            if ip.isUnspecified || ip.isMulticast || ip.isLinkLocal || ip.isBroadcast { return false }
            if ip.isLoopback, !(allowLoopback && remote.isLoopback) { return false }
            let remoteIsPublic = !(remote.isPrivate || remote.isLoopback || remote.isLinkLocal)
            if remoteIsPublic, ip.isPrivate { return false }
            return seen.insert(address).inserted
        }
    }
}
