import NIOCore
import OCIDistribution

/// A cache of the verified bytes of manifests, bounded by the sum of their sizes; eviction by second chance (CLOCK).
package struct ManifestCache: Sendable {
    /// Larger manifests are served from their files, in bytes.
    package static let entryLimit = 256 << 10
    /// Most manifests that are read into memory at the same time.
    private static let warmingLimit = 64

    private struct Slot: Sendable {
        var digest: Digest
        var bytes: ByteBuffer
        var wasUsed: Bool
    }

    private let capacity: Int
    private var total = 0
    private var slots: [Slot] = []
    private var positions: [Digest: Int] = [:]
    private var hand = 0
    /// Manifests that are being read.
    private var warming: Set<Digest> = []

    /// Creates a cache for at most `capacity` bytes.
    package init(capacity: Int) { self.capacity = max(0, capacity) }

    /// The size of all entries in bytes.
    package var byteCount: Int { total }

    /// The bytes of a manifest; marks it as used.
    package mutating func bytes(_ digest: Digest) -> ByteBuffer? {
        guard let position = positions[digest] else { return nil }
        slots[position].wasUsed = true
        return slots[position].bytes
    }

    /// Whether a manifest of this size in bytes can be cached.
    package func accepts(size: Int64) -> Bool { size <= Int64(min(Self.entryLimit, capacity)) }

    /// Whether the caller must read a manifest of this size into memory, because no other caller does; it must call
    /// ``endWarming(_:)`` then.
    package mutating func beginWarming(_ digest: Digest, size: Int64) -> Bool {
        accepts(size: size) && warming.count < Self.warmingLimit && warming.insert(digest).inserted
    }

    /// Ends the reading that ``beginWarming(_:size:)`` began.
    package mutating func endWarming(_ digest: Digest) { warming.remove(digest) }

    /// Adds a manifest whose bytes were verified, and evicts others if necessary.
    package mutating func insert(_ bytes: ByteBuffer, for digest: Digest) {
        let size = bytes.readableBytes
        guard accepts(size: Int64(size)) else { return }
        remove(digest)
        while total + size > capacity, !slots.isEmpty {
            hand %= slots.count
            if slots[hand].wasUsed {
                slots[hand].wasUsed = false
                hand += 1
            } else {
                removeSlot(hand)
            }
        }
        positions[digest] = slots.count
        slots.append(Slot(digest: digest, bytes: bytes, wasUsed: false))
        total += size
    }

    /// Removes a manifest.
    package mutating func remove(_ digest: Digest) {
        if let position = positions[digest] { removeSlot(position) }
    }

    private mutating func removeSlot(_ position: Int) {
        let slot = slots[position]
        total -= slot.bytes.readableBytes
        positions[slot.digest] = nil
        let last = slots.removeLast()
        if position < slots.count {
            slots[position] = last
            positions[last.digest] = position
        }
    }
}

/// The media type and the references of a manifest.
package struct ManifestSummary: Sendable {
    /// Larger content is never parsed, in bytes.
    package static let sizeLimit = Int64(Manifest.maximumSize)

    /// The manifest's or index's own media type.
    package var mediaType: MediaType
    /// What it refers to.
    package var references: [Descriptor]

    /// Reads a manifest or index. If the references cannot be decoded, the media type is that of its shape, and
    /// there are no references.
    ///
    /// - Returns: `nil` when the bytes are neither.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count <= Self.sizeLimit, let mediaType = MediaType.detect(manifestJSON: bytes),
            mediaType.isManifest
        else { return nil }
        self.mediaType = mediaType
        do throws(ManifestError) {
            references = try Manifest.decode(from: bytes, mediaType: mediaType).references
        } catch {
            references = []
        }
    }
}
