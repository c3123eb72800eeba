import Crypto

/// A node's Ed25519 key pair and the peer ID that follows from it.
public struct NodeIdentity: Sendable {
    /// The private key.
    let privateKey: Curve25519.Signing.PrivateKey
    /// The public key.
    public let publicKey: PublicKey
    /// The ID under which other nodes know this one.
    public let peerID: PeerID

    /// A new random identity, for a node without a data directory.
    public init() {
        self.init(Curve25519.Signing.PrivateKey())
    }

    /// The identity of a given 32-byte seed.
    ///
    /// - Throws: ``WireFormatError`` when the seed has another length.
    public init(seed: some Collection<UInt8>) throws(WireFormatError) {
        guard seed.count == 32, let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: Array(seed)) else {
            throw WireFormatError("Ed25519 seed of \(seed.count) bytes where 32 are needed")
        }
        self.init(key)
    }

    init(_ key: Curve25519.Signing.PrivateKey) {
        privateKey = key
        publicKey = PublicKey(key.publicKey)
        peerID = PeerID(publicKey: publicKey)
    }

    /// Signs a message (RFC 8032).
    func sign(_ message: [UInt8]) throws -> [UInt8] {
        Array(try privateKey.signature(for: message))
    }
}
