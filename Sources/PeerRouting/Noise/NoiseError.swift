/// Why a secured connection could not be made or went on no longer.
enum NoiseError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A frame or payload that does not follow the protocol.
    case malformed(String)
    /// A message that was not encrypted with the key agreed.
    case decryptionFailed
    /// The key in the payload did not sign this handshake's static key.
    case invalidSignature
    /// Somebody else than was expected.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// The counter of messages is used up.
    case exhausted

    var description: String {
        switch self {
        case .malformed(let reason): "malformed Noise message: \(reason)"
        case .decryptionFailed: "Noise message does not decrypt"
        case .invalidSignature: "identity key did not sign the Noise key"
        case .peerMismatch(let expected, let found): "peer \(expected) expected, \(found) found"
        case .exhausted: "Noise message counter used up"
        }
    }
}
