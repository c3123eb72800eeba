import COpenSSL

/// Hashes a stream of bytes into a ``Digest`` with OpenSSL's EVP interface, which uses the processor's SHA instructions.
///
/// Chunks of 64 KiB or more reach full speed. A hasher has one owner and may move between threads.
public struct DigestHasher: ~Copyable, @unchecked Sendable {
    // Unchecked: the context is owned by this noncopyable value alone, and only its mutating methods touch it.
    private let context: OpaquePointer

    /// The algorithm the stream is hashed with.
    public let algorithm: DigestAlgorithm

    /// The method tables, fetched once: looking one up costs as much as hashing a small manifest.
    private struct Methods: @unchecked Sendable {
        // Unchecked: OpenSSL's fetched methods are immutable and reference counted atomically; these are never freed.
        let sha256 = EVP_MD_fetch(nil, "SHA256", nil)
        let sha512 = EVP_MD_fetch(nil, "SHA512", nil)
        static let shared = Methods()
    }

    /// Starts hashing.
    public init(_ algorithm: DigestAlgorithm) {
        self.algorithm = algorithm
        let method =
            switch algorithm {
            case .sha256: Methods.shared.sha256
            case .sha512: Methods.shared.sha512
            }
        // Only lack of memory or a libcrypto without SHA-2 leads here; neither depends on input.
        guard let method, let context = EVP_MD_CTX_new() else { fatalError("libcrypto offers no \(algorithm)") }
        self.context = context
        guard EVP_DigestInit_ex2(context, method, nil) == 1 else { fatalError("libcrypto cannot start \(algorithm)") }
    }

    private init(_ algorithm: DigestAlgorithm, owning context: OpaquePointer) {
        self.algorithm = algorithm
        self.context = context
    }

    /// A hasher of its own that has seen the same bytes.
    public borrowing func copy() -> DigestHasher {
        guard let copy = EVP_MD_CTX_new(), EVP_MD_CTX_copy_ex(copy, context) == 1 else {
            fatalError("libcrypto cannot copy \(algorithm)")
        }
        return DigestHasher(algorithm, owning: copy)
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Hashes the next bytes of the stream; an empty buffer changes nothing.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        guard EVP_DigestUpdate(context, base, bytes.count) == 1 else { fatalError("libcrypto failed to hash") }
    }

    /// Hashes the next bytes of the stream.
    public mutating func update(_ bytes: some Sequence<UInt8>) {
        let done: Void? = bytes.withContiguousStorageIfAvailable { update(UnsafeRawBufferPointer($0)) }
        if done == nil { Array(bytes).withUnsafeBytes { update($0) } }
    }

    /// Ends the stream and returns its digest.
    public consuming func finalize() -> Digest {
        withUnsafeTemporaryAllocation(byteCount: Int(EVP_MAX_MD_SIZE), alignment: 8) { buffer in
            var length: UInt32 = 0
            let result = buffer.baseAddress.map {
                EVP_DigestFinal_ex(context, $0.assumingMemoryBound(to: UInt8.self), &length)
            }
            guard result == 1, Int(length) == algorithm.byteCount else { fatalError("libcrypto failed to hash") }
            return Digest(algorithm, unchecked: UnsafeRawBufferPointer(buffer))
        }
    }
}

extension Digest {
    /// Hashes bytes that are all in memory.
    public static func hash(_ algorithm: DigestAlgorithm = .sha256, of bytes: UnsafeRawBufferPointer) -> Digest {
        var hasher = DigestHasher(algorithm)
        hasher.update(bytes)
        return hasher.finalize()
    }

    /// Hashes bytes that are all in memory, such as `[UInt8]`, `Data`, `ArraySlice` or a string's `utf8`.
    public static func hash(_ algorithm: DigestAlgorithm = .sha256, of bytes: some Sequence<UInt8>) -> Digest {
        var hasher = DigestHasher(algorithm)
        hasher.update(bytes)
        return hasher.finalize()
    }
}
