import OCIDistribution
import Testing

@testable import ContentStore

/// The names and sources that an index reports.
@Suite struct SourceTests {
    private let layer = Digest.hash(.sha256, of: [1])
    private let manifest = Digest.hash(.sha256, of: [2])
    private let backendSource = ContentSource(registry: "registry.local", repository: "team/app")
    private let source = ContentSource(registry: "registry.local:5000", repository: "team/app")

    private func index(_ events: inout [ContentEvent]) -> ContentIndex {
        var index = ContentIndex()
        index.setContent(layer, size: 10, mediaType: .octetStream, children: [], events: &events)
        index.setContent(
            manifest, size: 20, mediaType: .imageManifest,
            children: [Descriptor(mediaType: .layerGzip, digest: layer, size: 10)], events: &events)
        return index
    }

    private func image(_ name: String, _ target: Digest) throws -> StoredImage {
        StoredImage(
            reference: try Reference(parsing: name),
            target: Descriptor(mediaType: .imageManifest, digest: target, size: 20))
    }

    /// containerd's labels have the registry without its port, so they count only while no image reaches the content.
    @Test func sourcesOfImagesReplaceThoseOfTheBackend() throws {
        var events: [ContentEvent] = []
        var index = index(&events)
        for digest in [layer, manifest] {
            index.setBackendSources(of: digest, to: [backendSource], events: &events)
            #expect(index.info(digest)?.sources == [backendSource])
        }
        let image = try image("registry.local:5000/team/app:1", manifest)
        events = []
        index.setImage(image, events: &events)
        for digest in [layer, manifest] {
            let info = try #require(index.info(digest))
            #expect(info.sources == [source])
            #expect(events.contains(.contentAdded(info)))
        }
        // Setting it again, as each listing does, has no effect.
        events = []
        index.setBackendSources(of: layer, to: [backendSource], events: &events)
        #expect(events == [])
        index.removeImage(image.reference, events: &events)
        for digest in [layer, manifest] { #expect(index.info(digest)?.sources == [backendSource]) }
        index.setBackendSources(of: layer, to: [], events: &events)
        // The manifest's backendSource leads to its layer.
        #expect(index.info(layer)?.sources == [backendSource])
        index.setBackendSources(of: manifest, to: [], events: &events)
        #expect(index.info(layer)?.sources == [])
        for digest in [layer, manifest] { index.removeContent(digest, events: &events) }
        #expect(index.nodeCount == 0)
    }

    /// The same repository from both sides is one source, whichever of them goes first.
    @Test func oneRepositoryOfBothKindsIsReportedOnce() throws {
        for removesImageFirst in [true, false] {
            var events: [ContentEvent] = []
            var index = index(&events)
            let image = try image("registry.local:5000/team/app:1", manifest)
            index.setImage(image, events: &events)
            index.setBackendSources(of: layer, to: [source], events: &events)
            #expect(index.info(layer)?.sources == [source])
            if removesImageFirst {
                index.removeImage(image.reference, events: &events)
                #expect(index.info(layer)?.sources == [source])
                index.setBackendSources(of: layer, to: [], events: &events)
            } else {
                index.setBackendSources(of: layer, to: [], events: &events)
                #expect(index.info(layer)?.sources == [source])
                index.removeImage(image.reference, events: &events)
            }
            #expect(index.info(layer)?.sources == [])
        }
    }

    /// A name with a tag and a digest does not define the tag, which may have moved since.
    @Test func aNameWithADigestIsNoTag() throws {
        var events: [ContentEvent] = []
        var index = index(&events)
        let tag = try Reference(parsing: "r.test/x:1")
        let pinned = try image("r.test/x:1@\(manifest)", manifest)
        index.setImage(pinned, events: &events)
        #expect(index.resolve(tag) == nil)
        #expect(index.resolve(pinned.reference)?.digest == manifest)
        let plain = try image("r.test/x:1", layer)
        index.setImage(plain, events: &events)
        #expect(index.resolve(tag)?.digest == layer)
        index.removeImage(plain.reference, events: &events)
        #expect(index.resolve(tag) == nil)
    }

    @Test func imagesAreSortedByName() throws {
        var events: [ContentEvent] = []
        var index = index(&events)
        let names = ["r.test/x:10", "r.test/x:1", "a.test/z:1", "r.test/x:1-a", "r.test/x/y:1"]
        for name in names { index.setImage(try image(name, manifest), events: &events) }
        #expect(index.images.map(\.reference.description) == names.sorted())
        #expect(Set(index.references.map(\.description)) == Set(names))
    }
}
