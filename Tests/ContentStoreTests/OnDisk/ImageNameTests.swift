import ContentStore
import ContentStoreConformance
import Foundation
import NIOCore
import OCIDistribution
import Testing

@Suite struct ImageNameTests {
    private let image: SampleContent.Image
    private let layout: Layout

    init() throws {
        var sample = SampleContent(seed: 100)
        image = sample.image()
        layout = try Layout()
        try layout.put(image)
    }

    @Test func containerdsNameComesFirst() async throws {
        try layout.editIndex { manifests in
            manifests = [
                [
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": image.manifest.digest.description, "size": image.manifest.bytes.count,
                    "annotations": [
                        "io.containerd.image.name": "docker.io/library/nginx:1.25",
                        "org.opencontainers.image.ref.name": "1.25",
                    ],
                ]
            ]
        }
        let names = try await layout.open().images().map(\.reference.description)
        #expect(names == ["docker.io/library/nginx:1.25"])
    }

    @Test func aFullNameInTheSpecificationsAnnotationCounts() async throws {
        try layout.name(image.manifest.descriptor, "docker.io/library/x:1")
        let names = try await layout.open().images().map(\.reference.description)
        #expect(names == ["docker.io/library/x:1"])
    }

    @Test func aBareTagIsSkippedWithoutARepository() async throws {
        try layout.name(image.manifest.descriptor, "latest")
        let plain = try await layout.open()
        #expect(try await plain.images() == [])
        #expect(try await plain.info(image.manifest.digest)?.mediaType == .imageManifest)
        let mapped = try await layout.open {
            $0.bareTags = ContentSource(registry: "docker.io", repository: "library/demo")
        }
        #expect(try await mapped.images().map(\.reference.description) == ["docker.io/library/demo:latest"])
        #expect(
            try await mapped.info(image.layers[0].digest)?.sources
                == [ContentSource(registry: "docker.io", repository: "library/demo")])
    }

    @Test func badElementsDoNotHideGoodOnes() async throws {
        try layout.name(image.manifest.descriptor, "r.test/good:1")
        try layout.editIndex { manifests in
            manifests.insert(["digest": "sha256:short", "size": 3], at: 0)
            manifests.insert(["size": 3], at: 0)
            manifests.insert(["digest": 17], at: 0)
            manifests.append([
                "digest": image.manifest.digest.description,
                "annotations": ["org.opencontainers.image.ref.name": "r.test/../../etc/passwd:1"],
            ])
            manifests.append([
                "digest": image.manifest.digest.description,
                "annotations": ["org.opencontainers.image.ref.name": "r.test/no-tag"],
            ])
        }
        let names = try await layout.open().images().map(\.reference.description)
        #expect(names == ["r.test/good:1"])
    }

    @Test func sizesAndTypesInTheIndexAreHints() async throws {
        var lie = image.manifest.descriptor
        lie.size = 1
        lie.mediaType = .imageIndex
        try layout.name(lie, "r.test/lie:1")
        let store = try await layout.open()
        let name = try Reference(parsing: "r.test/lie:1")
        let target = try #require(try await store.resolve(name))
        #expect(target.size == Int64(image.manifest.bytes.count))
        #expect(target.mediaType == .imageManifest)
        let content = try #require(try await store.open(image.manifest.digest))
        #expect(content.info.size == Int64(image.manifest.bytes.count))
        #expect(Array(try await content.collect(upTo: 1 << 20).readableBytesView) == image.manifest.bytes)
    }

    @Test func aChangeKeepsWhatOthersWrote() async throws {
        try layout.write(
            """
            {"schemaVersion":2,"vendor":{"n":1.5,"big":9007199254740993,"null":null},"annotations":{"a":"ü/\\""},
             "manifests":[
               {"digest":"sha256:nonsense","kept":true},
               {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\(image.manifest.digest)",
                "size":\(image.manifest.bytes.count),"platform":{"os":"linux","x":[1,2]},
                "annotations":{"org.opencontainers.image.ref.name":"1.25","other":"stays"}}]}
            """, to: "index.json")
        let store = try await layout.open()
        let name = try Reference(parsing: "r.test/new:1")
        try await store.tag(image.manifest.descriptor, as: name)
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(layout.path)/index.json"))
        let root = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let vendor = try #require(root["vendor"] as? [String: Any])
        #expect(vendor["n"] as? Double == 1.5)
        #expect(vendor["big"] as? Int64 == 9_007_199_254_740_993)
        #expect(vendor["null"] is NSNull)
        #expect((root["annotations"] as? [String: String]) == ["a": "ü/\""])
        let manifests = try #require(root["manifests"] as? [[String: Any]])
        #expect(manifests.count == 3)
        #expect(manifests[0]["kept"] as? Bool == true)
        #expect((manifests[1]["platform"] as? [String: Any])?["x"] as? [Int] == [1, 2])
        #expect(
            manifests[2]["annotations"] as? [String: String] == [
                "io.containerd.image.name": "r.test/new:1", "org.opencontainers.image.ref.name": "r.test/new:1",
            ])
        try await store.untag(name)
        #expect(try layout.index().count == 2)
    }

    @Test func aBadChangeOfTheIndexKeepsTheNames() async throws {
        try layout.name(image.manifest.descriptor, "r.test/kept:1")
        let store = try await layout.open()
        let recorder = EventRecorder(store)
        defer { recorder.stop() }
        let kept = try Reference(parsing: "r.test/kept:1")
        try layout.write(#"{"manifests":[{"#, to: "index.json")
        // A blob after it, so that it is known when the store has looked.
        let blob = SampleContent.Blob([42])
        try layout.put(blob)
        try await recorder.wait("the blob") { $0.contents[blob.digest] != nil }
        #expect(try await store.resolve(kept)?.digest == image.manifest.digest)
        await #expect(throws: ContentStoreError.self) {
            try await store.tag(image.manifest.descriptor, as: Reference(parsing: "r.test/other:1"))
        }
        try layout.write(#"{"manifests":[]}"#, to: "index.json")
        try await recorder.wait("no names") { $0.images.isEmpty }
    }

    @Test func ofTwoElementsWithOneNameTheLastCounts() async throws {
        var sample = SampleContent(seed: 101)
        let second = sample.image()
        try layout.put(second)
        try layout.name(image.manifest.descriptor, "r.test/twice:1")
        try layout.editIndex { manifests in
            manifests.append([
                "digest": second.manifest.digest.description, "size": 1,
                "annotations": ["org.opencontainers.image.ref.name": "r.test/twice:1"],
            ])
        }
        let store = try await layout.open()
        let name = try Reference(parsing: "r.test/twice:1")
        #expect(try await store.resolve(name)?.digest == second.manifest.digest)
        try await store.untag(name)
        #expect(try layout.index().isEmpty)
    }
}
