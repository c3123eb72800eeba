import NIOCore
import OCIDistribution

/// Verified bytes of manifests, so that what is asked for most is served from memory.
///
/// Bounded by the sum of the sizes; what was not asked for lately goes first (second chance).
package struct ManifestCache: Sendable {
    /// Larger manifests are served from their files, in bytes.
    package static let entryLimit = 256 << 10
    /// How many manifests are read into memory at once.
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
    /// Manifests on their way into memory.
    private var warming: Set<Digest> = []

    /// Creates a cache for at most `capacity` bytes.
    package init(capacity: Int) { self.capacity = max(0, capacity) }

    /// How many bytes are held.
    package var byteCount: Int { total }

    /// The bytes of a manifest, which count as used by that.
    package mutating func bytes(_ digest: Digest) -> ByteBuffer? {
        guard let position = positions[digest] else { return nil }
        slots[position].wasUsed = true
        return slots[position].bytes
    }

    /// Whether a manifest of this size in bytes is held at all.
    package func accepts(size: Int64) -> Bool { size <= Int64(min(Self.entryLimit, capacity)) }

    /// Whether the caller is to read a manifest of this size into memory, as nobody else does so yet; ``endWarming(_:)``
    /// must follow then.
    package mutating func beginWarming(_ digest: Digest, size: Int64) -> Bool {
        accepts(size: size) && warming.count < Self.warmingLimit && warming.insert(digest).inserted
    }

    /// A manifest was read, or could not be.
    package mutating func endWarming(_ digest: Digest) { warming.remove(digest) }

    /// Holds a manifest, whose bytes were verified, and lets go of others if need be.
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

    /// Lets go of a manifest.
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

/// What a store needs to know of a manifest's bytes.
package struct ManifestSummary: Sendable {
    /// Larger content is never parsed, in bytes.
    package static let sizeLimit = Int64(Manifest.maximumSize)

    /// The manifest's or index's own media type.
    package var mediaType: MediaType
    /// What it refers to.
    package var references: [Descriptor]

    /// Reads a manifest or index. One whose references cannot be understood is still what its shape says, and refers to
    /// nothing.
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
