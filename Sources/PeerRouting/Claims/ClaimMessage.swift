import Libp2p
import PeerRoutingCore

/// A request of the claim protocol: one message a stream, answered by one ``ClaimResponse``. See docs/claim-protocol.md.
package struct ClaimRequest: Hashable, Sendable {
    /// The protocol on the wire, listed in identify by nodes that are arbiters.
    package static let protocolID = "/spegel/claim/1.0.0"
    /// Longest key accepted, in bytes; a SHA-512 digest as text has 135.
    static let keyLength = 256

    /// What is asked or told.
    package enum Content: Hashable, Sendable {
        /// Who fetches the content?
        case claim(Claim)
        /// How it comes along.
        case report(ClaimProgress)
    }

    /// See `ContentClaim`.
    package struct Claim: Hashable, Sendable {
        package var offset: UInt64 = 0
        package var failedParent: PeerID?
        package var upstreamRate: UInt64 = 0
        package var current: ContentClaim.Current?
        /// Whether the arbiter is to answer itself although it knows one that is nearer to the key.
        package var isFinal = false

        package init() {}
    }

    /// The digest of the content as text.
    package var key: String
    package var content: Content

    package init(key: String, content: Content) {
        self.key = key
        self.content = content
    }

    /// Reads a message, without the length in front of it. Fields that are not known are left out.
    ///
    /// - Throws: ``WireFormatError`` when the bytes are not a protobuf message, or lack a key or a known type.
    package init(decoding bytes: [UInt8]) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        var (type, key, claim) = (UInt64(0), "", Claim())
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .varint(let value)): type = value
            case (2, .bytes(let value)):
                guard value.count <= Self.keyLength else {
                    throw WireFormatError(
                        "claim key of \(value.count) bytes where at most \(Self.keyLength) are accepted")
                }
                key = try ProtobufReader.string(value)
            case (3, .varint(let value)): claim.offset = value
            case (4, .bytes(let value)): claim.failedParent = try? PeerID(bytes: value)
            case (5, .varint(let value)): claim.upstreamRate = value
            case (6, .varint(1)): claim.current = .leading
            case (7, .bytes(let value)):
                if let parent = try? PeerID(bytes: value) { claim.current = .following(parent) }
            case (8, .varint(let value)): claim.isFinal = value == 1
            default: break
            }
        }
        guard !key.isEmpty else { throw WireFormatError("claim message without a key") }
        switch type {
        case 0: content = .claim(claim)
        case 1: content = .report(.arriving(bytes: claim.offset))
        case 2: content = .report(.complete)
        case 3: content = .report(.failed)
        default: throw WireFormatError("claim message of unknown type \(type)")
        }
        self.key = key
    }

    /// The bytes of the message, without a length in front.
    package func encoded() -> [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 128)
        switch content {
        case .claim(let claim):
            writer.string(2, key)
            if claim.offset != 0 { writer.varint(3, claim.offset) }
            if let failedParent = claim.failedParent { writer.bytes(4, failedParent.bytes) }
            if claim.upstreamRate != 0 { writer.varint(5, claim.upstreamRate) }
            switch claim.current {
            case .leading: writer.varint(6, 1)
            case .following(let parent): writer.bytes(7, parent.bytes)
            case nil: break
            }
            if claim.isFinal { writer.varint(8, 1) }
        case .report(let progress):
            let (type, bytes): (UInt64, UInt64) =
                switch progress {
                case .arriving(let bytes): (1, bytes)
                case .complete: (2, 0)
                case .failed: (3, 0)
                }
            writer.varint(1, type)
            writer.string(2, key)
            if bytes != 0 { writer.varint(3, bytes) }
        }
        return writer.bytes
    }
}

/// The answer to a ``ClaimRequest``. To a report it says no more than whether the node is still a claimant: `lead` or, for
/// one that the arbiter does not know, `unknown`.
package struct ClaimResponse: Hashable, Sendable {
    /// Addresses taken of a peer.
    static let addressLimit = 16

    package enum Content: Hashable, Sendable {
        case unknown
        case lead
        case follow(PeerID, addresses: [Multiaddr])
        /// Ask again after half a second.
        case wait
        /// Ask that node, which is nearer to the key.
        case ask(PeerID, addresses: [Multiaddr])
    }

    package var content: Content

    package init(_ content: Content) { self.content = content }

    /// Reads a message, without the length in front of it. Addresses that cannot be read are left out.
    ///
    /// - Throws: ``WireFormatError`` when the bytes are not a protobuf message, or a peer has no ID.
    package init(decoding bytes: [UInt8]) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        var (type, peer, addresses) = (UInt64(0), PeerID?.none, [Multiaddr]())
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .varint(let value)): type = value
            case (2, .bytes(let value)): peer = try? PeerID(bytes: value)
            case (3, .bytes(let value)):
                if addresses.count < Self.addressLimit, let address = try? Multiaddr(bytes: value) {
                    addresses.append(address)
                }
            default: break
            }
        }
        switch (type, peer) {
        case (1, _): content = .lead
        case (4, _): content = .wait
        case (2, let parent?): content = .follow(parent, addresses: addresses)
        case (3, let arbiter?): content = .ask(arbiter, addresses: addresses)
        case (2, nil), (3, nil): throw WireFormatError("claim answer without a peer's ID")
        // Also an answer that a later version of the protocol may have.
        default: content = .unknown
        }
    }

    /// The bytes of the message, without a length in front.
    package func encoded() -> [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 128)
        switch content {
        case .unknown: break
        case .lead: writer.varint(1, 1)
        case .wait: writer.varint(1, 4)
        case .follow(let peer, let addresses), .ask(let peer, let addresses):
            if case .follow = content { writer.varint(1, 2) } else { writer.varint(1, 3) }
            writer.bytes(2, peer.bytes)
            for address in addresses.prefix(Self.addressLimit) { writer.bytes(3, address.bytes) }
        }
        return writer.bytes
    }
}
