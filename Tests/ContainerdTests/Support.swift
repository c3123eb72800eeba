import ContainerdContentStore
import ContainerdTestKit
import ContentStore
import ContentStoreConformance
import Foundation
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import TestSupport

/// The state of a subscriber, built from events only, as an advertiser does.
final class Advertised: Sendable {
    struct State: Sendable {
        var digests: Set<Digest> = []
        var images: [Reference: Digest] = [:]
        /// Every digest that was ever reported, for tests that one never was.
        var everAdded: Set<Digest> = []
        var everRemoved: Set<Digest> = []
        var isComplete = false
    }

    private let box = NIOLockedValueBox(State())
    private let task: Task<Void, Never>

    init(_ store: any ContentStore) {
        let events = store.events()
        let box = self.box
        task = Task {
            for await event in events {
                box.withLockedValue { state in
                    switch event {
                    case .snapshotStarted:
                        state.digests = []
                        state.images = [:]
                        state.isComplete = false
                    case .imageSet(let image): state.images[image.reference] = image.target.digest
                    case .imageRemoved(let reference): state.images[reference] = nil
                    case .contentAdded(let info):
                        state.digests.insert(info.digest)
                        state.everAdded.insert(info.digest)
                    case .contentRemoved(let digest):
                        state.digests.remove(digest)
                        state.everRemoved.insert(digest)
                    case .snapshotComplete: state.isComplete = true
                    }
                }
            }
        }
    }

    deinit { task.cancel() }

    var state: State { box.withLockedValue { $0 } }
    var digests: Set<Digest> { state.digests }

    /// Waits until a condition on the reported state holds.
    func until(_ what: String, _ condition: @escaping (State) -> Bool) async throws {
        _ = try await eventually(
            what,
            detail: { "reported: \(self.state.digests.map(\.description).sorted()), images: \(self.state.images)" }
        ) { condition(state) ? true : nil }
    }
}

/// A daemon, a store over it, and a subscriber of the store.
struct Scene {
    let daemon: ContainerdDaemon
    let store: ContainerdContentStore
    let advertised: Advertised

    /// - Parameter mounted: whether the store can read the content path.
    static func start(
        _ options: ContainerdDaemon.Options = .init(), mounted: Bool = true,
        configure: (inout ContainerdConfiguration) -> Void = { _ in }
    ) async throws -> Scene {
        let daemon = try await ContainerdDaemon.start(options)
        let store = makeStore(
            daemon, contentPath: mounted ? nil : "/nonexistent/content", configure: configure)
        try await store.start()
        try await store.waitUntilIndexed()
        return Scene(daemon: daemon, store: store, advertised: Advertised(store))
    }

    /// Imports images with `ctr`, as another program would.
    func load(
        _ images: [(name: String, target: Descriptor)], _ blobs: [SampleContent.Blob], namespace: String = "k8s.io"
    ) async throws {
        let file = "\(daemon.path)/\(UUID().uuidString).tar"
        try ImageArchive.write(images, blobs: blobs, to: file)
        try await daemon.ctr(namespace: namespace, "images", "import", "--no-unpack", "--all-platforms", file)
        try FileManager.default.removeItem(atPath: file)
    }

    /// Waits until exactly the content of containerd is reported.
    func untilConsistent() async throws {
        _ = try await eventually(
            "the reported digests are the listed ones",
            detail: { "reported: \(advertised.digests.map(\.description).sorted())" }
        ) {
            try await daemon.listedDigests() == Set(advertised.digests.map(\.description)) ? true : nil
        }
    }

    func finish() async throws {
        await store.shutdown()
        try await daemon.stop(SIGKILL)
    }
}

/// All bytes of content.
func bytes(of content: OpenContent) async throws -> [UInt8] {
    switch content.body {
    case .bytes(let buffer): return Array(buffer.readableBytesView)
    case .file(let file): return Array(try file.read(at: 0, count: Int(file.size)).readableBytesView)
    case .stream(let stream):
        var result: [UInt8] = []
        for try await part in stream.open(0..<stream.size) { result += Array(part.readableBytesView) }
        return result
    }
}

func reference(_ text: String) throws -> Reference { try Reference(parsing: text) }
