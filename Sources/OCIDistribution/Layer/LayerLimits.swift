/// What a compressed layer may inflate to before it is taken for a decompression bomb.
public struct LayerLimits: Sendable, Hashable {
    /// The largest uncompressed size in bytes.
    public var maximumUncompressedSize: Int64

    /// The largest number of uncompressed bytes for each compressed one. Deflate cannot exceed 1032; layers of zeros
    /// come close to it, so that the ratio alone condemns a layer only beyond ``ratioAllowance``.
    public var maximumRatio: Int64

    /// Uncompressed bytes up to which the ratio does not matter.
    public var ratioAllowance: Int64

    /// Makes limits; the defaults are 64 GiB, and a ratio of 200 once a layer has grown beyond 1 GiB.
    public init(
        maximumUncompressedSize: Int64 = 64 << 30, maximumRatio: Int64 = 200, ratioAllowance: Int64 = 1 << 30
    ) {
        self.maximumUncompressedSize = maximumUncompressedSize
        self.maximumRatio = maximumRatio
        self.ratioAllowance = ratioAllowance
    }
}
