@testable import Libp2p
@testable import PeerRoutingCore

/// Peer IDs in binary and in every text form, public keys, and private keys in PEM.
func fuzzPeerID(_ input: UnsafeBufferPointer<UInt8>) {
    let text = String(decoding: input, as: UTF8.self)
    for peer in [try? PeerID(bytes: input), try? PeerID(parsing: text)] {
        guard let peer else { continue }
        for form in [peer.description, peer.contentIdentifierText, peer.base36Text] {
            require(PeerID(form) == peer, "the text of a peer ID differs: \(form)")
        }
        require((try? PeerID(bytes: peer.bytes)) == peer, "the bytes of a peer ID differ")
    }
    if let key = try? PublicKey(parsing: Array(input)[...]) {
        require((try? PublicKey(parsing: key.encoded[...])) == key, "a public key differs")
        require((try? PeerID(bytes: PeerID(publicKey: key).bytes)) != nil, "a public key has no valid ID")
    }
    if let key = try? PrivateKeyPEM.decode(text) {
        let again = try? PrivateKeyPEM.decode(PrivateKeyPEM.encode(key))
        require(again?.rawRepresentation == key.rawRepresentation, "a private key differs")
    }
}
