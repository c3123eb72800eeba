import Foundation

/// The test vectors in `Vectors/libp2p_vectors.json`, computed by independent implementations.
package struct Vectors: Decodable {
    package struct Identity: Decodable {
        package let name, seed, base58: String
        package let cidBase32, cidBase36, kadID, peerID, publicKey, publicKeyPB: String

        package enum CodingKeys: String, CodingKey {
            case name, seed, base58
            case cidBase32 = "cid_base32"
            case cidBase36 = "cid_base36"
            case kadID = "kad_id"
            case peerID = "peer_id"
            case publicKey = "public_key"
            case publicKeyPB = "public_key_pb"
        }
    }

    package struct Key: Decodable {
        package let cid, key, multihash: String
        package let cpl: [String: Int]
        package let distance: [String: String]
        package let kadKey: String
        package let order: [String]

        package enum CodingKeys: String, CodingKey {
            case cid, key, multihash, cpl, distance, order
            case kadKey = "kad_key"
        }
    }

    package let cplBetween: [String: Int]
    package let identify: String
    package let identities: [Identity]
    package let kad: [String: String]
    package let keys: [Key]
    package let multiaddr: [String: String]
    package let multistream: [String: String]
    package let noise: [String: String]
    package let pkcs8PEM: String
    package let uvarint: [String: String]

    package enum CodingKeys: String, CodingKey {
        case cplBetween = "cpl_between"
        case identify, identities, kad, keys, multiaddr, multistream, noise
        case pkcs8PEM = "pkcs8_pem"
        case uvarint
    }

    package static func load() throws -> Vectors {
        guard
            let url = Bundle.module.url(
                forResource: "libp2p_vectors", withExtension: "json", subdirectory: "Vectors")
        else { throw CocoaError(.fileNoSuchFile) }
        return try JSONDecoder().decode(Vectors.self, from: Data(contentsOf: url))
    }

    package func identity(_ name: String) throws -> Identity {
        guard let identity = identities.first(where: { $0.name == name }) else { throw CocoaError(.coderValueNotFound) }
        return identity
    }
}

/// The bytes of hexadecimal text in a test; blanks are ignored.
package func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

package func hexText(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
