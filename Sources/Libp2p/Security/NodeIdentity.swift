import Crypto

/// A node's Ed25519 key pair and the peer ID that follows from it.
public struct NodeIdentity: Sendable {
    /// The private key.
    let privateKey: Curve25519.Signing.PrivateKey
    /// The public key.
    package let publicKey: PublicKey
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

/// A peer's package key in libp2p's envelope: a key type and the key's bytes.
package struct PublicKey: Hashable, Sendable {
    /// The key types of libp2p; only Ed25519 keys can be used by this module.
    package enum KeyType: UInt64, Sendable {
        /// RSA in PKIX form.
        case rsa = 0
        /// Ed25519, 32 bytes.
        case ed25519 = 1
        /// secp256k1, compressed.
        case secp256k1 = 2
        /// ECDSA in PKIX form.
        case ecdsa = 3
    }

    /// Longest key accepted, in bytes (an RSA key of 8192 bits has about 1 KiB).
    static let maximumLength = 2048

    /// The kind of key.
    package let type: KeyType
    /// The key in its type's own form.
    package let bytes: [UInt8]

    /// An Ed25519 package key.
    init(_ key: Curve25519.Signing.PublicKey) {
        type = .ed25519
        bytes = Array(key.rawRepresentation)
    }

    /// Reads the protobuf form: field 1 the type, field 2 the bytes.
    init(parsing encoded: ArraySlice<UInt8>) throws(WireFormatError) {
        var reader = ProtobufReader(encoded)
        var type: KeyType?
        var bytes: ArraySlice<UInt8>?
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .varint(let number)):
                guard let known = KeyType(rawValue: number) else { throw WireFormatError("key type \(number)") }
                type = known
            case (2, .bytes(let value)): bytes = value
            default: break
            }
        }
        guard let type, let bytes else { throw WireFormatError("package key without type or bytes") }
        guard bytes.count <= Self.maximumLength else { throw WireFormatError("package key of \(bytes.count) bytes") }
        if type == .ed25519, bytes.count != 32 {
            throw WireFormatError("Ed25519 package key of \(bytes.count) bytes")
        }
        self.type = type
        self.bytes = Array(bytes)
    }

    /// The protobuf form, from which the peer ID is made.
    var encoded: [UInt8] {
        var writer = ProtobufWriter()
        writer.varint(1, type.rawValue)
        writer.bytes(2, bytes)
        return writer.bytes
    }

    /// Whether `signature` over `message` was made by this key's owner; false for key types that cannot be checked.
    func verifies(signature: ArraySlice<UInt8>, of message: [UInt8]) -> Bool {
        guard type == .ed25519, let key = try? Curve25519.Signing.PublicKey(rawRepresentation: bytes) else {
            return false
        }
        return key.isValidSignature(Array(signature), for: message)
    }
}

extension PeerID {
    /// The ID of a package key.
    package init(publicKey: PublicKey) {
        let encoded = publicKey.encoded
        self.init(
            encoded.count <= 42
                ? Multihash(code: Multihash.identity, digest: encoded) : Multihash.sha256(of: encoded))
    }
}

extension Multihash {
    /// The SHA2-256 multihash of the given bytes: for the UTF-8 of a registry string, its DHT key.
    package static func sha256(of bytes: some Collection<UInt8>) -> Multihash {
        var hasher = SHA256()
        if bytes.withContiguousStorageIfAvailable({ hasher.update(bufferPointer: UnsafeRawBufferPointer($0)) }) == nil {
            Array(bytes).withUnsafeBytes { hasher.update(bufferPointer: $0) }
        }
        return Multihash(code: sha2256, digest: Array(hasher.finalize()))
    }
}
