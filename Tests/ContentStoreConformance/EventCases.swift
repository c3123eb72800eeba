import ContentStore
import OCIDistribution

extension ContentStoreConformance {
    static let eventCases: [ConformanceCase] = [
        ConformanceCase("a subscription begins with a snapshot") { backend in
            var sample = SampleContent(seed: 40)
            let image = sample.image()
            try await hold(image, in: backend)
            let name = reference("registry.test/sample:1")
            try await eventually("everything is known") {
                let stored = StoredImage(reference: name, target: image.manifest.descriptor)
                let known = try await backend.store.resolve(name)
                return try await backend.store.contents(of: stored).count == 4
                    && known != nil
            }
            var view = StoreView()
            var iterator = backend.store.events().makeAsyncIterator()
            try requireEqual(await iterator.next(), .snapshotStarted, "first event")
            while let event = await iterator.next() {
                view.apply(event)
                if event == .snapshotComplete { break }
                guard event != .snapshotStarted else { throw ConformanceFailure("a second snapshot began") }
            }
            try requireEqual(view.images[name], image.manifest.digest, "image in the snapshot")
            try require(image.digests.isSubset(of: view.contents.keys), "content in the snapshot")
            try requireEqual(
                view.contents[image.layers[0].digest]?.sources,
                [ContentSource(registry: "registry.test", repository: "sample")], "sources in the snapshot")
        },

        ConformanceCase("the snapshot of an empty store is empty") { backend in
            var iterator = backend.store.events().makeAsyncIterator()
            try requireEqual(await iterator.next(), .snapshotStarted, "first event")
            try requireEqual(await iterator.next(), .snapshotComplete, "second event")
        },

        ConformanceCase("changes become events") { backend in
            var sample = SampleContent(seed: 41)
            let image = sample.image()
            let recorder = EventRecorder(backend.store)
            defer { recorder.stop() }
            try await recorder.wait("the snapshot") { $0.isComplete }
            try await hold(image, in: backend)
            let name = reference("registry.test/sample:1")
            try await recorder.wait("the image") { $0.images[name] == image.manifest.digest }
            try await recorder.wait("its content") { image.digests.isSubset(of: $0.contents.keys) }
            let source = ContentSource(registry: "registry.test", repository: "sample")
            try await recorder.wait("its sources") { view in
                image.digests.allSatisfy { view.contents[$0]?.sources == [source] }
            }
            let second = sample.image(layers: [image.layers[0]])
            try await hold(second, in: backend)
            try await recorder.wait("the moved name") { $0.images[name] == second.manifest.digest }
            try await backend.removeImage(name)
            try await recorder.wait("the removed name") { $0.images[name] == nil }
        },

        ConformanceCase("removed content becomes an event") { backend in
            var sample = SampleContent(seed: 42)
            let image = sample.image()
            let kept = sample.image(layers: [image.layers[0]])
            try await hold(image, in: backend, as: "registry.test/gone:1")
            try await hold(kept, in: backend, as: "registry.test/kept:1")
            let recorder = EventRecorder(backend.store)
            defer { recorder.stop() }
            let all = image.digests.union(kept.digests)
            try await recorder.wait("the snapshot") { all.isSubset(of: $0.contents.keys) }
            try await backend.removeImage(reference("registry.test/gone:1"))
            let gone = image.digests.subtracting(kept.digests)
            for digest in gone { try await backend.removeContent(digest) }
            try await recorder.wait("the removals") { $0.contents.keys.allSatisfy { !gone.contains($0) } }
            try await recorder.wait("what is left") { kept.digests.isSubset(of: $0.contents.keys) }
            for digest in gone {
                try require(try await backend.store.info(digest) == nil, "\(digest) is absent from the store as well")
            }
            try require(try await backend.store.info(image.layers[0].digest) != nil, "the shared layer is not")
        },

        ConformanceCase("events report what the store holds") { backend in
            var sample = SampleContent(seed: 43)
            let recorder = EventRecorder(backend.store)
            defer { recorder.stop() }
            var images: [(Reference, SampleContent.Image)] = []
            let base = sample.layer()
            for round in 0..<12 {
                let image = sample.image(layers: [base, sample.layer(size: 100 + round)])
                let name = "registry.test/repo\(round % 4):t\(round % 5)"
                try await hold(image, in: backend, as: name)
                images.removeAll { $0.0 == reference(name) }
                images.append((reference(name), image))
                if round % 3 == 2 {
                    let (removed, _) = images.removeFirst()
                    try await backend.removeImage(removed)
                }
            }
            let expected = Dictionary(uniqueKeysWithValues: images.map { ($0.0, $0.1.manifest.digest) })
            let held = images.reduce(into: Set<Digest>()) { $0.formUnion($1.1.digests) }
            try await recorder.wait("the names") { $0.images == expected }
            try await recorder.wait("the content") { held.isSubset(of: $0.contents.keys) }
            let listed = try await backend.store.images()
            try requireEqual(
                Dictionary(uniqueKeysWithValues: listed.map { ($0.reference, $0.target.digest) }), expected, "listing")
            for digest in held {
                try await eventuallyEqual(try await backend.store.info(digest), "\(digest) by event") {
                    recorder.view.contents[digest]
                }
            }
        },

        ConformanceCase("several subscribers receive the same") { backend in
            var sample = SampleContent(seed: 44)
            let recorders = (0..<8).map { _ in EventRecorder(backend.store) }
            defer { for recorder in recorders { recorder.stop() } }
            let image = sample.image()
            try await hold(image, in: backend)
            for recorder in recorders {
                try await recorder.wait("the content") { image.digests.isSubset(of: $0.contents.keys) }
                try await recorder.wait("the image") { $0.images.count == 1 }
            }
        },

        ConformanceCase("a subscriber that is cancelled ends") { backend in
            let store = backend.store
            let task = Task {
                var count = 0
                for await _ in store.events() { count += 1 }
                return count
            }
            task.cancel()
            _ = await task.value
        },
    ]
}
