/// What libp2p puts into Noise messages 2 and 3: who is speaking, and which muxers it offers.
/// See https://github.com/libp2p/specs/tree/master/noise
struct NoisePayload: Equatable, Sendable {
    static let signaturePrefix = "noise-libp2p-static-key:"
    /// Lists of muxers longer than this count as none.
    static let maximumMuxers = 100

    var identityKey: [UInt8]
    var signature: [UInt8]
    /// Nil when no list was sent; then the muxer is negotiated inside the channel.
    var muxers: [String]?

    init(identityKey: [UInt8], signature: [UInt8], muxers: [String]?) {
        self.identityKey = identityKey
        self.signature = signature
        self.muxers = muxers
    }

    /// A payload that binds an identity to the static key of one handshake.
    init(identity: NodeIdentity, staticKey: [UInt8], muxers: [String]?) throws {
        identityKey = identity.publicKey.encoded
        signature = try identity.sign(Self.signedMessage(staticKey))
        self.muxers = muxers
    }

    static func signedMessage(_ staticKey: some Sequence<UInt8>) -> [UInt8] {
        Array(signaturePrefix.utf8) + staticKey
    }

    init(parsing bytes: [UInt8]) throws(WireFormatError) {
        var reader = ProtobufReader(bytes)
        identityKey = []
        signature = []
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let value)): identityKey = Array(value)
            case (2, .bytes(let value)): signature = Array(value)
            case (4, .bytes(let value)):
                var extensions = try reader.nested(value)
                while let field = try extensions.next() {
                    guard field.number == 2, case .bytes(let name) = field.value else { continue }
                    muxers = (muxers ?? []) + [try ProtobufReader.string(name)]
                }
            default: break
            }
        }
        if let muxers, muxers.count > Self.maximumMuxers { self.muxers = nil }
    }

    var encoded: [UInt8] {
        var writer = ProtobufWriter(reservingCapacity: 128)
        writer.bytes(1, identityKey)
        writer.bytes(2, signature)
        if let muxers {
            writer.message(4) { extensions in
                for name in muxers { extensions.string(2, name) }
            }
        }
        return writer.bytes
    }
}
