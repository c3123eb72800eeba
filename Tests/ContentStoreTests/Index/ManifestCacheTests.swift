import NIOCore
import OCIDistribution
import Testing

@testable import ContentStore

@Suite struct ManifestCacheTests {
    private let digests = (0..<10).map { Digest.hash(.sha256, of: [UInt8($0)]) }

    private func buffer(_ count: Int) -> ByteBuffer { ByteBuffer(repeating: 1, count: count) }

    @Test func itHoldsNoMoreThanItMay() {
        var cache = ManifestCache(capacity: 1000)
        for round in 0..<500 {
            cache.insert(buffer(1 + round * 37 % 400), for: digests[round % 10])
            #expect(cache.byteCount <= 1000)
            if round % 7 == 0 { cache.remove(digests[round % 3]) }
        }
        for digest in digests { cache.remove(digest) }
        #expect(cache.byteCount == 0)
    }

    @Test func whatIsUsedStays() {
        var cache = ManifestCache(capacity: 300)
        for digest in digests[..<3] { cache.insert(buffer(100), for: digest) }
        #expect(cache.bytes(digests[0]) != nil)
        cache.insert(buffer(100), for: digests[3])
        #expect(cache.bytes(digests[0]) != nil)
        #expect(cache.bytes(digests[1]) == nil)
        #expect(cache.bytes(digests[3]) != nil)
    }

    @Test func whatIsTooLargeIsNotTaken() {
        var cache = ManifestCache(capacity: 1 << 30)
        #expect(cache.accepts(size: 256 << 10))
        #expect(!cache.accepts(size: 256 << 10 + 1))
        cache.insert(buffer((256 << 10) + 1), for: digests[0])
        #expect(cache.bytes(digests[0]) == nil)
        var none = ManifestCache(capacity: 0)
        none.insert(buffer(1), for: digests[0])
        #expect(none.byteCount == 0)
    }
}
