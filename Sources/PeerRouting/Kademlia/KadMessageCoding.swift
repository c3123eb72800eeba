extension KadMessage {
    /// Limits on what is taken from one message, and on what is put in one.
    enum Limits {
        /// Longest request we read; a request names at most one peer with its addresses.
        static let requestLength = 64 * 1024
        /// Longest answer we read, as in Go.
        static let answerLength = 4 * 1024 * 1024
        /// Longest answer we write: an answer is a sample, not an archive.
        static let writtenAnswerLength = 1024 * 1024
        /// Bytes of one peer; addresses at the end that do not fit are left out.
        static let peerLength = 8 * 1024
        /// Addresses taken of one peer.
        static let addressesPerPeer = 64
        /// Closer peers taken from one answer.
        static let closerPeers = 40
        /// Providers taken from one answer.
        static let providerPeers = 2000
    }

    /// Reads a message, without the length in front of it.
    ///
    /// Peers whose ID, and addresses that cannot be read are left out, as are whatever fields are not known.
    ///
    /// - Throws: ``WireFormatError`` when the bytes are not a protobuf message or its type is none of Kademlia's.
    package init(decoding bytes: [UInt8]) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        var kind = Kind.putValue
        var key: [UInt8] = []
        var closer: [KadContact] = []
        var providers: [KadContact] = []
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .varint(let number)):
                guard let known = Kind(rawValue: number) else {
                    throw WireFormatError("Kademlia message of unknown type \(number)")
                }
                kind = known
            case (2, .bytes(let value)):
                key = Array(value)
            case (8, .bytes(let value)):
                if closer.count < Limits.closerPeers, let contact = try Self.contact(try reader.nested(value)) {
                    closer.append(contact)
                }
            case (9, .bytes(let value)):
                if providers.count < Limits.providerPeers, let contact = try Self.contact(try reader.nested(value)) {
                    providers.append(contact)
                }
            default:
                break
            }
        }
        self.init(kind: kind, key: key, closerPeers: closer, providerPeers: providers)
    }

    private static func contact(_ message: ProtobufReader) throws(WireFormatError) -> KadContact? {
        var reader = message
        var id: PeerID?
        var addresses: [Multiaddr] = []
        var isConnected = false
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let value)):
                guard let parsed = try? PeerID(bytes: value) else { return nil }
                id = parsed
            case (2, .bytes(let value)):
                if addresses.count < Limits.addressesPerPeer, let address = try? Multiaddr(bytes: value) {
                    addresses.append(address)
                }
            case (3, .varint(let value)):
                isConnected = value == 1
            default:
                break
            }
        }
        guard let id else { return nil }
        return KadContact(
            id: id, addresses: addresses.compactMap { $0.strippingPeerID(id) }, isConnected: isConnected)
    }

    /// The bytes of the message, without a length in front.
    package func encoded() -> [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 64 + 64 * (closerPeers.count + providerPeers.count))
        if kind != .putValue { writer.varint(1, kind.rawValue) }
        if !key.isEmpty { writer.bytes(2, key) }
        for peer in closerPeers { writer.bytes(8, Self.encoded(peer)) }
        for peer in providerPeers {
            let bytes = Self.encoded(peer)
            guard writer.bytes.count + bytes.count + 16 <= Limits.writtenAnswerLength else { break }
            writer.bytes(9, bytes)
        }
        // The cluster level nobody reads any more; Go writes 1, and so do the test vectors.
        writer.varint(10, 1)
        return writer.bytes
    }

    private static func encoded(_ peer: KadContact) -> [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 64)
        writer.bytes(1, peer.id.bytes)
        for address in peer.addresses.prefix(Limits.addressesPerPeer) {
            guard writer.bytes.count + address.bytes.count + 8 <= Limits.peerLength else { break }
            writer.bytes(2, address.bytes)
        }
        if peer.isConnected { writer.varint(3, 1) }
        return writer.bytes
    }
}
