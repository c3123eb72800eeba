import ContentStore
import OCIDistribution

extension ContentStoreConformance {
    static let imageCases: [ConformanceCase] = [
        ConformanceCase("names lead to manifests") { backend in
            var sample = SampleContent(seed: 20)
            let image = sample.image()
            try await hold(image, in: backend)
            let name = reference("registry.test/sample:1")
            try await eventuallyEqual(image.manifest.digest, "tag") { try await backend.store.resolve(name)?.digest }
            try await eventuallyEqual(.imageManifest, "media type of the target") {
                try await backend.store.resolve(name)?.mediaType
            }
            try requireEqual(
                try await backend.store.resolve(name)?.size, Int64(image.manifest.bytes.count), "size of the target")
            let byDigest = reference("registry.test/sample@\(image.manifest.digest)")
            // By its digest it is found when it was noticed, which may be after its name was.
            try await eventuallyEqual(image.manifest.digest, "by digest") {
                try await backend.store.resolve(byDigest)?.digest
            }
            for other in ["registry.test/sample:2", "registry.test/other:1", "other.test/sample:1"] {
                try require(try await backend.store.resolve(reference(other)) == nil, "\(other) is unknown")
            }
            let absent = SampleContent.Blob([5]).digest
            try require(
                try await backend.store.resolve(reference("registry.test/sample@\(absent)")) == nil,
                "an absent digest does not resolve")
        },

        ConformanceCase("a name that is moved leads to the new manifest") { backend in
            var sample = SampleContent(seed: 21)
            let first = sample.image()
            let second = sample.image()
            let name = reference("registry.test/sample:1")
            try await hold(first, in: backend)
            try await eventuallyEqual(first.manifest.digest, "first") { try await backend.store.resolve(name)?.digest }
            try await hold(second, in: backend)
            try await eventuallyEqual(second.manifest.digest, "second") {
                try await backend.store.resolve(name)?.digest
            }
            try requireEqual(try await backend.store.images().count, 1, "number of images")
        },

        ConformanceCase("a name that is removed is unknown, and others stay") { backend in
            var sample = SampleContent(seed: 22)
            let image = sample.image()
            try await hold(image, in: backend, as: "registry.test/sample:1")
            try await hold(image, in: backend, as: "registry.test/sample:2")
            let first = reference("registry.test/sample:1")
            let second = reference("registry.test/sample:2")
            try await eventuallyEqual([first, second], "images") {
                try await backend.store.images().map(\.reference)
            }
            try await backend.removeImage(first)
            try await eventuallyEqual([second], "images") { try await backend.store.images().map(\.reference) }
            try require(try await backend.store.resolve(first) == nil, "it is unknown")
            try requireEqual(try await backend.store.resolve(second)?.digest, image.manifest.digest, "the other")
        },

        ConformanceCase("images are listed by name") { backend in
            var sample = SampleContent(seed: 23)
            let image = sample.image()
            let names = ["b.test/x:1", "a.test/x:2", "a.test/x:10", "a.test/w:9", "c.test:5000/deep/er/name:v1.2_3-4"]
            for name in names { try await hold(image, in: backend, as: name) }
            try await eventuallyEqual(names.sorted(), "names") {
                try await backend.store.images().map(\.reference.description)
            }
            for stored in try await backend.store.images() {
                try requireEqual(stored.target.digest, image.manifest.digest, "target of \(stored.reference)")
            }
        },

        ConformanceCase("an image's content is what is reachable and present") { backend in
            var sample = SampleContent(seed: 24)
            let shared = sample.layer()
            let amd = sample.image(layers: [shared, sample.layer()])
            let arm = sample.image(layers: [shared, sample.layer()], architecture: "arm64")
            let absent = sample.image(architecture: "s390x")
            let index = SampleContent.index([amd, absent, arm])
            for blob in amd.blobs + arm.blobs + [index] { try await backend.put(blob) }
            let name = reference("registry.test/multi:1")
            try await backend.setImage(name, to: index.descriptor)
            let expected = amd.digests.union(arm.digests).union([index.digest])
            let stored = StoredImage(reference: name, target: index.descriptor)
            try await eventuallyEqual(expected, "content") {
                Set(try await backend.store.contents(of: stored).map(\.digest))
            }
            let list = try await backend.store.contents(of: stored)
            try requireEqual(list.count, expected.count, "each is listed once")
            let order = Dictionary(uniqueKeysWithValues: list.enumerated().map { ($1.digest, $0) })
            for image in [amd, arm] {
                let parent = order[image.manifest.digest] ?? .max
                try require(order[index.digest] == 0, "the index comes first")
                for child in [image.config] + image.layers {
                    try require(order[child.digest] ?? -1 > 0, "\(child.digest) comes after the index")
                    if child != shared { try require(order[child.digest] ?? -1 > parent, "children follow") }
                }
            }
        },

        ConformanceCase("content knows the repositories that reach it") { backend in
            var sample = SampleContent(seed: 25)
            let shared = sample.layer()
            let first = sample.image(layers: [shared, sample.layer()])
            let second = sample.image(layers: [shared, sample.layer()])
            try await hold(first, in: backend, as: "a.test/one:1")
            try await hold(second, in: backend, as: "b.test/two:1")
            let one = ContentSource(registry: "a.test", repository: "one")
            let two = ContentSource(registry: "b.test", repository: "two")
            try await eventuallyEqual([one, two], "sources of the shared layer") {
                try await backend.store.info(shared.digest)?.sources
            }
            try await eventuallyEqual([one], "sources of the first config") {
                try await backend.store.info(first.config.digest)?.sources
            }
            try await eventuallyEqual([two], "sources of the second manifest") {
                try await backend.store.info(second.manifest.digest)?.sources
            }
            try await backend.removeImage(reference("a.test/one:1"))
            try await eventuallyEqual([two], "sources of the shared layer") {
                try await backend.store.info(shared.digest)?.sources
            }
        },

        ConformanceCase("two tags of a repository are one source") { backend in
            var sample = SampleContent(seed: 26)
            let image = sample.image()
            try await hold(image, in: backend, as: "a.test/one:1")
            try await hold(image, in: backend, as: "a.test/one:2")
            let one = ContentSource(registry: "a.test", repository: "one")
            try await eventually("both are known") { try await backend.store.images().count == 2 }
            try await eventuallyEqual([one], "sources") {
                try await backend.store.info(image.layers[0].digest)?.sources
            }
            try await backend.removeImage(reference("a.test/one:1"))
            try await eventually("one is left") { try await backend.store.images().count == 1 }
            try await eventuallyEqual([one], "sources") {
                try await backend.store.info(image.layers[0].digest)?.sources
            }
        },

        ConformanceCase("content that arrives after its name is found", needs: [.absentTargets]) { backend in
            var sample = SampleContent(seed: 27)
            let image = sample.image()
            let name = reference("registry.test/late:1")
            try await backend.setImage(name, to: image.manifest.descriptor)
            try await eventuallyEqual(image.manifest.digest, "target") {
                try await backend.store.resolve(name)?.digest
            }
            let stored = StoredImage(reference: name, target: image.manifest.descriptor)
            try requireEqual(try await backend.store.contents(of: stored), [], "content")
            for blob in image.blobs { try await backend.put(blob) }
            try await eventuallyEqual(image.digests, "content") {
                Set(try await backend.store.contents(of: stored).map(\.digest))
            }
            let source = ContentSource(registry: "registry.test", repository: "late")
            try await eventuallyEqual([source], "sources") {
                try await backend.store.info(image.layers[1].digest)?.sources
            }
        },

        ConformanceCase("an image without its content does not hide others", needs: [.absentTargets]) { backend in
            var sample = SampleContent(seed: 28)
            let good = sample.image()
            let broken = sample.image()
            try await backend.setImage(reference("registry.test/broken:1"), to: broken.manifest.descriptor)
            try await hold(good, in: backend, as: "registry.test/good:1")
            try await eventuallyEqual(2, "number of images") { try await backend.store.images().count }
            let stored = StoredImage(
                reference: reference("registry.test/good:1"), target: good.manifest.descriptor)
            try await eventuallyEqual(good.digests, "content") {
                Set(try await backend.store.contents(of: stored).map(\.digest))
            }
            try require(try await backend.store.info(broken.manifest.digest) == nil, "nothing is made up")
        },
    ]
}
