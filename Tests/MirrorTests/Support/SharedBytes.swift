import NIOCore
import OCIDistribution
import PeerRouting

/// Content of any size without repetition, created once and shared.
struct SharedBytes: Sendable {
    let buffer: ByteBuffer
    let digest: Digest

    var count: Int { buffer.readableBytes }

    /// - Parameter seed: content of another seed differs.
    init(count: Int, seed: UInt64) {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(count)
        var random = SplitMix64(seed: seed)
        let block = (0..<8192).map { _ in random.next() }
        var index: UInt64 = 0
        block.withUnsafeBytes { raw in
            while buffer.readableBytes < count {
                // A counter in front of each block makes every position unique without a random number for each byte.
                buffer.writeInteger(index &* 0x9e37_79b9_7f4a_7c15 ^ seed)
                buffer.writeBytes(raw.prefix(max(0, min(raw.count, count - buffer.readableBytes))))
                index += 1
            }
        }
        buffer.moveWriterIndex(to: count)
        self.init(buffer)
    }

    init(_ buffer: ByteBuffer) {
        self.buffer = buffer
        digest = buffer.withUnsafeReadableBytes { Digest.hash(of: $0) }
    }

    /// An image manifest whose layer has this size, so that it is a different one for each.
    static func manifest(_ number: Int) -> SharedBytes { manifest(layer: Digest.hash(of: "l".utf8), size: number) }

    static func manifest(layer: Digest, size: Int) -> SharedBytes {
        SharedBytes(
            ByteBuffer(
                string: """
                    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":\
                    {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\(Digest.hash(of: "c".utf8))",\
                    "size":1},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":\
                    "\(layer)","size":\(size)}]}
                    """))
    }

    func slice(_ range: Range<Int>) -> ByteBuffer {
        buffer.getSlice(at: buffer.readerIndex + range.lowerBound, length: range.count) ?? ByteBuffer()
    }
}
