import ContentStoreConformance
import OCIDistribution
import Testing

@testable import ContentStore

@Suite struct ContentIndexTests {
    /// The same questions answered the slow and obvious way.
    private struct Model {
        var contents: [Digest: (size: Int64, children: [Digest])] = [:]
        var images: [Reference: Digest] = [:]

        func reachable(from digest: Digest) -> Set<Digest> {
            var seen: Set<Digest> = []
            var pending = [digest]
            while let next = pending.popLast() {
                guard let content = contents[next], seen.insert(next).inserted else { continue }
                pending += content.children
            }
            return seen
        }

        var sources: [Digest: Set<ContentSource>] {
            var result = contents.mapValues { _ in Set<ContentSource>() }
            for (reference, target) in images {
                for digest in reachable(from: target) { result[digest]?.insert(ContentSource(reference)) }
            }
            return result
        }
    }

    /// Random changes; after each one the index, and a subscriber that only receives events, equal the model.
    @Test(arguments: 0..<24) func randomChangesEqualTheModel(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed &+ 1)
        var index = ContentIndex()
        var model = Model()
        var view = StoreView()
        // Levels, so that there are no cycles: 0-19 layers, 20-34 manifests, 35-41 indexes.
        let digests = (0..<42).map { Digest.hash(.sha256, of: [UInt8($0), UInt8(truncatingIfNeeded: seed)]) }
        func pick(_ range: Range<Int>) -> Digest {
            digests[range.lowerBound + Int(random.next() % UInt64(range.count))]
        }
        let references = try (0..<12).map {
            try Reference(registry: "r\($0 % 2).test", repository: "x\($0 % 3)", tag: "t\($0)")
        }
        for step in 0..<400 {
            var events: [ContentEvent] = []
            switch random.next() % 8 {
            case 0, 1:
                let digest = pick(0..<20)
                index.setContent(digest, size: 10, mediaType: .octetStream, children: [], events: &events)
                model.contents[digest] = (10, [])
            case 2, 3:
                let isIndex = random.next() % 3 == 0
                let digest = isIndex ? pick(35..<42) : pick(20..<35)
                let children = (0..<Int(random.next() % 5)).map { _ in isIndex ? pick(20..<35) : pick(0..<20) }
                index.setContent(
                    digest, size: 20, mediaType: .imageManifest,
                    children: children.map { Descriptor(mediaType: .octetStream, digest: $0, size: 10) },
                    events: &events)
                model.contents[digest] = (20, children)
            case 4:
                let digest = pick(0..<42)
                index.removeContent(digest, events: &events)
                model.contents[digest] = nil
            case 5, 6:
                let reference = references[Int(random.next() % 12)]
                let target = pick(20..<42)
                index.setImage(
                    StoredImage(
                        reference: reference, target: Descriptor(mediaType: .imageManifest, digest: target, size: 20)),
                    events: &events)
                model.images[reference] = target
            default:
                let reference = references[Int(random.next() % 12)]
                index.removeImage(reference, events: &events)
                model.images[reference] = nil
            }
            for event in events { view.apply(event) }
            let context: Comment = "seed \(seed), step \(step)"
            try #require(Set(index.presentDigests) == Set(model.contents.keys), context)
            try #require(index.contentCount == model.contents.count, context)
            try #require(index.contentBytes == model.contents.values.reduce(0) { $0 + $1.size }, context)
            try #require(view.images == model.images, context)
            try #require(Set(view.contents.keys) == Set(model.contents.keys), context)
            for (digest, sources) in model.sources {
                try #require(index.info(digest)?.sources == sources.sorted(), context)
                try #require(view.contents[digest] == index.info(digest), context)
            }
            for target in model.images.values {
                let reachable = index.reachable(from: target).map(\.digest)
                try #require(Set(reachable) == model.reachable(from: target), context)
                try #require(Set(reachable).count == reachable.count, context)
            }
        }
        // No node of removed content is left.
        var events: [ContentEvent] = []
        for reference in references { index.removeImage(reference, events: &events) }
        for digest in digests { index.removeContent(digest, events: &events) }
        #expect(index.nodeCount == 0)
        #expect(index.imageCount == 0)
        #expect(index.contentBytes == 0)
    }

    @Test func thousandsOfImagesOnOneBaseComeAndGo() throws {
        var index = ContentIndex()
        var events: [ContentEvent] = []
        let base = (0..<8).map { Digest.hash(.sha256, of: [UInt8($0)]) }
        for digest in base {
            index.setContent(digest, size: 1, mediaType: .octetStream, children: [], events: &events)
        }
        let children = base.map { Descriptor(mediaType: .layer, digest: $0, size: 1) }
        for number in 0..<3000 {
            let manifest = Digest.hash(.sha256, of: Array("\(number)".utf8))
            let reference = try Reference(registry: "r.test", repository: "app\(number % 50)", tag: "t\(number)")
            index.setContent(manifest, size: 9, mediaType: .imageManifest, children: children, events: &events)
            index.setImage(
                StoredImage(
                    reference: reference, target: Descriptor(mediaType: .imageManifest, digest: manifest, size: 9)),
                events: &events)
        }
        #expect(index.info(base[0])?.sources.count == 50)
        for number in 0..<3000 {
            let manifest = Digest.hash(.sha256, of: Array("\(number)".utf8))
            index.removeImage(
                try Reference(registry: "r.test", repository: "app\(number % 50)", tag: "t\(number)"), events: &events)
            index.removeContent(manifest, events: &events)
            events = []
        }
        #expect(index.info(base[0])?.sources == [])
        #expect(index.nodeCount == 8)
    }

    @Test func aManifestThatRefersToItselfDoesNoHarm() throws {
        var index = ContentIndex()
        var events: [ContentEvent] = []
        let digests = (0..<3).map { Digest.hash(.sha256, of: [UInt8($0)]) }
        for (position, digest) in digests.enumerated() {
            let next = digests[(position + 1) % 3]
            let children = [digest, next].map { Descriptor(mediaType: .imageIndex, digest: $0, size: 1) }
            index.setContent(digest, size: 1, mediaType: .imageIndex, children: children, events: &events)
        }
        let name = try Reference(parsing: "r.test/x:1")
        index.setImage(
            StoredImage(reference: name, target: Descriptor(mediaType: .imageIndex, digest: digests[0], size: 1)),
            events: &events)
        #expect(index.reachable(from: digests[0]).count == 3)
        index.removeImage(name, events: &events)
        for digest in digests { index.removeContent(digest, events: &events) }
        #expect(index.nodeCount == 0)
    }
}
