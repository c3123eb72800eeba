import Logging
import PeerRouting

/// An answer of `spegel dht`, for people and for programs.
struct DHTReport {
    /// What is printed as text.
    var lines: [String]
    private var document: Logger.MetadataValue

    /// What is printed as JSON: one object.
    var json: String {
        var line = JSONLine()
        line.value(document)
        return String(decoding: line.bytes, as: UTF8.self)
    }

    static func id(_ id: PeerID) -> DHTReport {
        DHTReport(lines: ["\(id)"], document: ["id": "\(id)"])
    }

    static func peers(_ peers: [WalkedPeer]) -> DHTReport {
        var table = Table([("ID", .left), ("VERSION", .left), ("ADDRESSES", .left)])
        for peer in peers {
            table.add([
                "\(peer.id)", peer.hasAnswered ? peer.agentVersion ?? "unknown" : "no answer", joined(peer.addresses),
            ])
        }
        let list = peers.map { peer -> Logger.MetadataValue in
            var fields: Logger.Metadata = [
                "id": "\(peer.id)", "addresses": texts(peer.addresses),
                "answered": .stringConvertible(peer.hasAnswered),
            ]
            fields["version"] = peer.agentVersion.map { "\($0)" }
            return .dictionary(fields)
        }
        return DHTReport(lines: table.lines, document: ["peers": .array(list)])
    }

    static func providers(_ peers: [Peer], of key: String) -> DHTReport {
        var table = Table([("ID", .left), ("ADDRESSES", .left)])
        for peer in peers {
            table.add(["\(peer.id)", peer.addresses.map(\.description).joined(separator: " ")])
        }
        let list = peers.map { peer -> Logger.MetadataValue in
            ["id": "\(peer.id)", "addresses": .array(peer.addresses.map { "\($0)" })]
        }
        return DHTReport(
            lines: peers.isEmpty ? [] : table.lines,
            document: [
                "key": "\(key)", "cid": "\(KademliaRouter.contentIdentifier(of: key))", "providers": .array(list),
            ])
    }

    static func pong(_ pong: DHTClient.Pong, from node: NodeAddress) -> DHTReport {
        let milliseconds = pong.roundTrip / .milliseconds(1)
        var lines = ["\(pong.id) at \(node): \(rounded(milliseconds)) ms"]
        lines.append("version    \(pong.agentVersion ?? "unknown")")
        lines.append("protocols  \(pong.protocols.joined(separator: " "))")
        lines.append("addresses  \(joined(pong.addresses))")
        var fields: Logger.Metadata = [
            "id": "\(pong.id)", "rtt_ms": .stringConvertible(milliseconds),
            "protocols": .array(pong.protocols.map { "\($0)" }), "addresses": texts(pong.addresses),
        ]
        fields["version"] = pong.agentVersion.map { "\($0)" }
        return DHTReport(lines: lines, document: .dictionary(fields))
    }

    private static func joined(_ addresses: [Multiaddr]) -> String {
        addresses.map(\.description).joined(separator: " ")
    }

    private static func texts(_ addresses: [Multiaddr]) -> Logger.MetadataValue {
        .array(addresses.map { "\($0)" })
    }

    /// With two decimals.
    private static func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
}
