/// A digest algorithm registered by the OCI image specification (descriptor.md, "Registered algorithms").
public enum DigestAlgorithm: String, Sendable, Hashable, CaseIterable, Codable {
    /// SHA-256 (RFC 6234), which every implementation must support.
    case sha256
    /// SHA-512 (RFC 6234), which an implementation may support.
    case sha512

    /// Length of a digest in bytes: 32 or 64.
    public var byteCount: Int {
        switch self {
        case .sha256: 32
        case .sha512: 64
        }
    }
}
