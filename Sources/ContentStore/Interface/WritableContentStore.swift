import NIOCore
import OCIDistribution

/// A store that content can be written to and whose names can be changed.
public protocol WritableContentStore: ContentStore {
    /// Begins to write content.
    ///
    /// Nothing of it is visible before ``ContentWriter/commit()`` succeeds. Several writers of one digest may be active
    /// at the same time, and each of them succeeds; the content may be present already.
    ///
    /// - Parameters:
    ///   - digest: the digest that the finished content must have.
    ///   - size: the size in bytes that the finished content must have, when known.
    /// - Throws: ``ContentStoreError/tooManyWriters(limit:)``, ``ContentStoreError/noSpace(_:)``,
    ///   ``ContentStoreError/readOnly(_:)``, ``ContentStoreError/permissionDenied(_:)``, or another
    ///   ``ContentStoreError``.
    func beginWrite(_ digest: Digest, size: Int64?) async throws -> any ContentWriter

    /// Makes `reference` name `target`, replacing its former target.
    ///
    /// - Throws: ``ContentStoreError/absent(_:)`` when the target's content is not in the store,
    ///   ``ContentStoreError/untaggable(_:)`` when the reference has neither a tag nor a digest, or the backend's error.
    func tag(_ target: Descriptor, as reference: Reference) async throws

    /// Removes a name. The content stays. A name that is not known is no error.
    func untag(_ reference: Reference) async throws

    /// Removes content. Content that is not present is no error; names that lead to it stay.
    func remove(_ digest: Digest) async throws
}

extension WritableContentStore {
    /// Writes content that is in memory.
    ///
    /// - Throws: as ``beginWrite(_:size:)``, ``ContentWriter/append(_:)`` and ``ContentWriter/commit()``.
    @discardableResult
    public func write(_ bytes: ByteBuffer, as digest: Digest) async throws -> ContentInfo {
        let writer = try await beginWrite(digest, size: Int64(bytes.readableBytes))
        do {
            try await writer.append(bytes)
            return try await writer.commit()
        } catch {
            await writer.abort()
            throw error
        }
    }
}

/// One piece of content being written. Its methods must be called one after the other.
///
/// A writer that is released without ``commit()`` or ``abort()`` frees its resources as ``abort()`` does, at an
/// unspecified time.
public protocol ContentWriter: AnyObject, Sendable {
    /// How many bytes were appended.
    var offset: Int64 { get }

    /// Appends bytes; returns when they may be followed by more, so that awaiting it is the back-pressure.
    ///
    /// - Throws: ``ContentStoreError/sizeMismatch(_:expected:actual:)`` as soon as the expected size is exceeded,
    ///   ``ContentStoreError/writerClosed`` after a commit or abort, ``ContentStoreError/noSpace(_:)`` and other
    ///   errors of the backend. After an error only ``abort()`` may be called.
    func append(_ bytes: ByteBuffer) async throws

    /// Verifies size and digest and makes the content visible and durable.
    ///
    /// - Returns: a description of the content.
    /// - Throws: ``ContentStoreError/digestMismatch(expected:actual:)``,
    ///   ``ContentStoreError/sizeMismatch(_:expected:actual:)``, ``ContentStoreError/writerClosed`` or an error of the
    ///   backend; nothing becomes visible then, and what was written is discarded.
    func commit() async throws -> ContentInfo

    /// Discards what was written. Harmless after a commit or another abort.
    func abort() async
}
