import Foundation

/// A node as the HTTP bootstrap endpoint describes it: `{"ID":"12D3…","Addrs":["/ip4/10.0.0.1/tcp/5001"]}`.
struct BootstrapRecord: Codable, Equatable, Sendable {
    var id: String?
    var addresses: [String]?

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case addresses = "Addrs"
    }

    /// Longest list read, in bytes.
    static let maximumLength = 64 * 1024
    /// Entries used of a list.
    static let maximumEntries = 3

    init(_ peer: PeerID, _ addresses: [Multiaddr]) {
        id = peer.description
        self.addresses = addresses.map(\.description)
    }

    /// Reads a list. Entries without any usable address, and those beyond the first three, are left out.
    ///
    /// - Throws: ``BootstrapError`` when it is not such a list, or an ID in it is not one.
    static func candidates(in json: [UInt8]) throws -> [BootstrapCandidate] {
        let records: [BootstrapRecord]
        do {
            records = try JSONDecoder().decode([BootstrapRecord].self, from: Data(json))
        } catch {
            throw BootstrapError("not a JSON list of {\"ID\", \"Addrs\"}: \(error)")
        }
        return try records.prefix(maximumEntries).compactMap { record in
            var id: PeerID?
            if let text = record.id, !text.isEmpty {
                do { id = try PeerID(parsing: text) } catch { throw BootstrapError("peer ID in list: \(error)") }
            }
            let addresses = (record.addresses ?? []).prefix(64).compactMap { Multiaddr($0) }
            guard !addresses.isEmpty else { return nil }
            return BootstrapCandidate(id: id, addresses: addresses.compactMap(\.withoutPeerID))
        }
    }

    /// The list with one entry.
    static func list(_ peer: PeerID, _ addresses: [Multiaddr]) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode([BootstrapRecord(peer, addresses)]))
    }
}
