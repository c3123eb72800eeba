/// Checks a layer twice while it streams: its bytes as transferred against the digest and size in the manifest, and what
/// they inflate to against the diffID in the image config.
public struct LayerVerifier: ~Copyable, Sendable {
    /// The diffID the layer must have.
    public let diffID: Digest

    private var content: DigestVerifier
    private var layer: DiffIDHasher

    /// Starts a check.
    ///
    /// - Parameters:
    ///   - descriptor: the layer's descriptor in the manifest.
    ///   - diffID: the layer's entry in `rootfs.diff_ids` of the image config.
    ///   - limits: what the layer may inflate to.
    /// - Throws: ``LayerError/unsupportedCompression(_:)`` when the media type says so.
    public init(
        descriptor: Descriptor, diffID: Digest, limits: LayerLimits = LayerLimits()
    ) throws(LayerError) {
        if descriptor.mediaType.layerCompression == .zstd { throw .unsupportedCompression("zstd") }
        self.diffID = diffID
        content = DigestVerifier(expected: descriptor.digest, size: descriptor.size)
        layer = DiffIDHasher(algorithm: diffID.algorithm, limits: limits)
    }

    /// Takes the next bytes of the layer as they are transferred.
    ///
    /// - Throws: ``LayerError``; the stream must then be given up.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) throws(LayerError) {
        do throws(VerificationError) { try content.update(bytes) } catch { throw .content(error) }
        try layer.update(bytes)
    }

    /// Takes the next bytes of the layer; see ``update(_:)-(UnsafeRawBufferPointer)``.
    public mutating func update(_ bytes: [UInt8]) throws(LayerError) {
        try bytes.withUnsafeBufferPointer { (buffer) throws(LayerError) in try update(UnsafeRawBufferPointer(buffer)) }
    }

    /// Ends the stream and returns the uncompressed size in bytes.
    ///
    /// - Throws: ``LayerError``: first what is wrong with the bytes as transferred, then with what they inflate to.
    @discardableResult
    public consuming func finish() throws(LayerError) -> Int64 {
        let diffID = diffID
        do throws(VerificationError) { try content.finish() } catch { throw .content(error) }
        let result = try layer.finish()
        guard result.diffID == diffID else {
            throw .diffIDMismatch(expected: diffID, actual: result.diffID, uncompressedSize: result.uncompressedSize)
        }
        return result.uncompressedSize
    }
}
