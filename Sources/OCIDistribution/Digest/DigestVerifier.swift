/// Checks a stream of bytes against a digest and, where known, a size.
///
/// The size is checked with every chunk, so that a source that sends too much cannot fill a disk.
public struct DigestVerifier: ~Copyable, Sendable {
    /// The digest the stream must have.
    public let expected: Digest

    /// The size in bytes the stream must have; nil when it is not known.
    public let size: Int64?

    /// Bytes seen so far.
    public private(set) var received: Int64 = 0

    private var hasher: DigestHasher

    /// Starts a check; `size` is in bytes, nil when it is not known.
    public init(expected: Digest, size: Int64? = nil) {
        self.expected = expected
        self.size = size
        hasher = DigestHasher(expected.algorithm)
    }

    private init(expected: Digest, size: Int64?, received: Int64, hasher: consuming DigestHasher) {
        self.expected = expected
        self.size = size
        self.received = received
        self.hasher = hasher
    }

    /// A check of its own of a stream that has begun with the same bytes.
    public borrowing func copy() -> DigestVerifier {
        DigestVerifier(expected: expected, size: size, received: received, hasher: hasher.copy())
    }

    /// Takes the next bytes of the stream.
    ///
    /// - Throws: ``VerificationError/tooLong(digest:expectedSize:received:)`` as soon as the size is exceeded; the bytes
    ///   of that call are not hashed, and the stream must be abandoned.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) throws(VerificationError) {
        let (total, overflow) = received.addingReportingOverflow(Int64(bytes.count))
        let limit = size ?? .max
        guard !overflow, total <= limit else {
            throw .tooLong(digest: expected, expectedSize: limit, received: overflow ? .max : total)
        }
        received = total
        hasher.update(bytes)
    }

    /// Takes the next bytes of the stream; see ``update(_:)-(UnsafeRawBufferPointer)``.
    public mutating func update(_ bytes: some Sequence<UInt8>) throws(VerificationError) {
        let result = bytes.withContiguousStorageIfAvailable { buffer -> Result<Void, VerificationError> in
            do throws(VerificationError) {
                return .success(try update(UnsafeRawBufferPointer(buffer)))
            } catch {
                return .failure(error)
            }
        }
        if let result { return try result.get() }
        try update(Array(bytes))
    }

    /// Ends the stream.
    ///
    /// - Throws: ``VerificationError`` when it was too short or hashes to another digest.
    public consuming func finish() throws(VerificationError) {
        if let size, received < size { throw .tooShort(digest: expected, expectedSize: size, received: received) }
        let expected = expected
        let received = received
        let actual = hasher.finalize()
        guard actual == expected else { throw .digestMismatch(expected: expected, actual: actual, size: received) }
    }
}

/// How content differs from its descriptor.
public enum VerificationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// More bytes came than expected. `received` counts up to and including the chunk that went over the size.
    case tooLong(digest: Digest, expectedSize: Int64, received: Int64)
    /// The content ended early.
    case tooShort(digest: Digest, expectedSize: Int64, received: Int64)
    /// The bytes hash to something else.
    case digestMismatch(expected: Digest, actual: Digest, size: Int64)

    /// The digest that was expected.
    public var expected: Digest {
        switch self {
        case .tooLong(let digest, _, _), .tooShort(let digest, _, _), .digestMismatch(let digest, _, _): digest
        }
    }

    /// A sentence with what was expected and what was received.
    public var description: String {
        switch self {
        case .tooLong(let digest, let size, let received):
            "content of \(digest) is too long: expected \(size) bytes, got at least \(received)"
        case .tooShort(let digest, let size, let received):
            "content of \(digest) is too short: expected \(size) bytes, got \(received)"
        case .digestMismatch(let expected, let actual, let size):
            "content does not match its digest: expected \(expected), got \(actual) (\(size) bytes)"
        }
    }
}
