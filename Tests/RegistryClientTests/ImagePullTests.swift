import ContentStore
import Foundation
import Logging
import NIOCore
import NIOHTTP1
import OCIDistribution
import RegistryClient
import Synchronization
import Testing

/// Pulls from servers that fail in every way a transfer can fail.
@Suite struct ImagePullTests {
    /// An image of one platform, as a registry holds it.
    private struct Image {
        static let layer = [UInt8]((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 11) })
        static let config = Array("{}".utf8)

        let layerDigest = Digest.hash(of: Image.layer)
        let manifest: [UInt8]
        let index: [UInt8]

        init() throws {
            let config = Descriptor(
                mediaType: .imageConfig, digest: Digest.hash(of: Image.config), size: Int64(Image.config.count))
            let layer = Descriptor(mediaType: .layerGzip, digest: layerDigest, size: Int64(Image.layer.count))
            let encoder = JSONEncoder()
            manifest = Array(
                try encoder.encode(ImageManifest(mediaType: .imageManifest, config: config, layers: [layer])))
            let child = Descriptor(
                mediaType: .imageManifest, digest: Digest.hash(of: manifest), size: Int64(manifest.count))
            index = Array(try encoder.encode(ImageIndex(mediaType: .imageIndex, manifests: [child])))
        }

        /// What an honest registry says.
        func answer(_ request: ScriptedServer.Request) -> ScriptedServer.Response {
            for content in [manifest, index, Image.config, Image.layer]
            where request.uri.contains("/\(Digest.hash(of: content))?") {
                let rest = Array(content.dropFirst(request.offset))
                guard request.offset > 0 else { return .init(body: rest) }
                return .init(
                    status: .partialContent,
                    headers: ["content-range": "bytes \(request.offset)-\(content.count - 1)/\(content.count)"],
                    body: rest)
            }
            if request.uri.contains("/manifests/1.0?") { return .init(body: index) }
            return .init(status: .notFound)
        }

        var layerURI: String { "/v2/library/demo/blobs/\(layerDigest)?ns=docker.io" }
    }

    private func pull(
        _ script: @escaping @Sendable (ScriptedServer.Request) -> ScriptedServer.Response,
        store: InMemoryContentStore = InMemoryContentStore(),
        limits: ImagePull.Limits? = nil,
        report: @escaping @Sendable (PullEvent) -> Void = { _ in },
        check: (Result<PullReport, any Error>, ScriptedServer) async throws -> Void
    ) async throws {
        let server = try await ScriptedServer(script)
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        // No test is about how long something takes.
        let client = RegistryClient(connectTimeout: .seconds(60), idleTimeout: .seconds(120), logger: logger)
        var bounds = limits ?? ImagePull.Limits()
        bounds.backoff = .milliseconds(1)
        let pull = ImagePull(
            client: client, endpoint: RegistryEndpoint(authority: server.authority), store: store, limits: bounds,
            logger: logger, report: report)
        let result: Result<PullReport, any Error>
        do {
            result = .success(try await pull.run(try Reference(parsing: "docker.io/library/demo:1.0")))
        } catch {
            result = .failure(error)
        }
        await client.shutdown()
        try await server.close()
        try await check(result, server)
    }

    /// What a pull that must fail says.
    private func failure(_ result: Result<PullReport, any Error>) -> String {
        switch result {
        case .success: "it succeeded"
        case .failure(let error as PullError): "\(error)"
        case .failure(let error): "an unexpected kind of error: \(error)"
        }
    }

    /// Whether the store holds exactly the image.
    private func expectComplete(_ store: InMemoryContentStore, _ image: Image) async throws {
        for content in [image.index, image.manifest, Image.config, Image.layer] {
            let open = try #require(try await store.open(Digest.hash(of: content)))
            guard case .bytes(let bytes) = open.body else {
                Issue.record("not in memory")
                continue
            }
            let isSame = Array(bytes.readableBytesView) == content
            #expect(isSame)
        }
        let target = try await store.resolve(try Reference(parsing: "docker.io/library/demo:1.0"))
        #expect(target?.digest == Digest.hash(of: image.index))
    }

    @Test func wholeImage() async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        let finished = Mutex<[ContentRole]>([])
        try await pull(
            image.answer, store: store,
            report: { event in
                if case .finished(let content) = event { finished.withLock { $0.append(content.role) } }
            }
        ) { result, _ in
            let report = try result.get()
            #expect(report.contents.map(\.role).map(\.rawValue).sorted() == ["config", "index", "layer", "manifest"])
            #expect(report.contents.allSatisfy { $0.retries == 0 && $0.source != nil })
            #expect(report.target.digest == Digest.hash(of: image.index))
            #expect(finished.withLock { $0.suffix(2) } == [.manifest, .index])
            try await expectComplete(store, image)
        }
        try await pull(image.answer, store: store) { result, server in
            let report = try result.get()
            #expect(report.contents.filter { $0.source == nil }.count == 2)
            #expect(server.count(image.layerURI) == 0)
        }
    }

    /// Each transfer of the layer ends early; the next goes on from there.
    @Test func brokenTransfersGoOn() async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        try await pull(
            { request in
                var response = image.answer(request)
                if request.uri == image.layerURI, request.earlier < 4 { response.cut = 300_000 }
                return response
            }, store: store
        ) { result, server in
            let report = try result.get()
            let retries = report.contents.map(\.retries).max() ?? 0
            #expect(retries > 0 && retries <= 4)
            #expect(server.count(image.layerURI) == retries + 1)
            try await expectComplete(store, image)
        }
    }

    /// A server that breaks off and then knows no ranges.
    @Test func ignoredRange() async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        try await pull(
            { request in
                guard request.uri == image.layerURI else { return image.answer(request) }
                return .init(body: Image.layer, cut: request.earlier == 0 ? 1_000_000 : nil)
            }, store: store
        ) { result, _ in
            _ = try result.get()
            try await expectComplete(store, image)
        }
    }

    /// All bytes arrive, but the end of the last chunk does not; there is nothing left to ask for.
    @Test func missingEndOfChunks() async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        let arrived = ScriptedServer.Signal()
        try await pull(
            { request in
                guard request.uri == image.layerURI else { return image.answer(request) }
                if request.offset >= Image.layer.count { return .init(status: .rangeNotSatisfiable) }
                var response = image.answer(request)
                response.isChunked = true
                response.cut = response.body.count
                response.closing = arrived
                return response
            }, store: store,
            report: { event in
                guard case .progress(let digest, let received) = event, digest == image.layerDigest else { return }
                if received == Int64(Image.layer.count) { arrived.give() }
            }
        ) { result, server in
            _ = try result.get()
            #expect(server.count(image.layerURI) == 1)
            try await expectComplete(store, image)
        }
    }

    @Test func trouble() async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        try await pull(
            { request in
                if request.earlier == 0 { return .init(status: .internalServerError, body: Array("busy".utf8)) }
                if request.earlier == 1 { return .init(status: .tooManyRequests) }
                return image.answer(request)
            }, store: store
        ) { result, _ in
            let report = try result.get()
            #expect(report.contents.allSatisfy { $0.retries == 2 })
            try await expectComplete(store, image)
        }
    }

    /// Wrong bytes once are fetched again; wrong bytes twice are an error, and nothing of them stays.
    @Test(arguments: [1, 2]) func wrongBytes(times: Int) async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        try await pull(
            { request in
                var response = image.answer(request)
                if request.uri == image.layerURI, request.earlier < times { response.body[1_500_000] ^= 1 }
                return response
            }, store: store
        ) { result, _ in
            if times == 1 {
                _ = try result.get()
                try await expectComplete(store, image)
            } else {
                #expect(failure(result).contains("digest"))
                #expect(try await store.info(image.layerDigest) == nil)
                #expect(try await store.images().isEmpty)
            }
        }
    }

    /// Ways to be wrong that no repetition helps against; each error has to say what is the matter.
    enum Fault: CaseIterable {
        case missingTag, missingLayer, wrongManifest, wrongHeader, noManifest, hugeManifest, tooMuch, wrongRange,
            forbidden, silence

        var mentioned: String {
            switch self {
            case .missingTag, .missingLayer: "not found"
            case .wrongManifest: "sent content with digest"
            case .wrongHeader: "Docker-Content-Digest"
            case .noManifest: "manifest"
            case .hugeManifest: "bytes of manifest"
            case .tooMuch: "more than"
            case .wrongRange: "Content-Range"
            case .forbidden: "403: go away"
            case .silence: "after 10 of 3000000 bytes"
            }
        }
    }

    @Test(arguments: Fault.allCases) func faults(fault: Fault) async throws {
        let image = try Image()
        let store = InMemoryContentStore()
        try await pull(
            { request in
                var response = image.answer(request)
                let isLayer = request.uri == image.layerURI
                let isTag = request.uri.contains("/manifests/1.0?")
                switch fault {
                case .missingTag where isTag: return .init(status: .notFound)
                case .missingLayer where isLayer: return .init(status: .notFound)
                case .wrongManifest where request.uri.contains("/manifests/sha256:"): response.body.append(0x20)
                case .wrongHeader where isTag: response.headers.add(name: "docker-content-digest", value: "sha256:xyz")
                case .noManifest where isTag: response.body = Array("<html>".utf8)
                case .hugeManifest where isTag: response.body = [UInt8](repeating: 0x20, count: 5 << 20)
                case .tooMuch where isLayer: response.body += [0]
                case .wrongRange where isLayer:
                    if request.earlier == 0 { response.cut = 1_000_000 }
                    response.headers.replaceOrAdd(name: "content-range", value: "bytes 5-9/10")
                case .forbidden where isLayer: return .init(status: .forbidden, body: Array("go away".utf8))
                case .silence where isLayer:
                    response = .init(body: Image.layer, cut: 10)
                default: break
                }
                return response
            }, store: store
        ) { result, _ in
            #expect(failure(result).contains(fault.mentioned))
            let images = try await store.images()
            #expect(images.isEmpty)
        }
    }

    @Test func indexesInIndexesHaveAnEnd() async throws {
        // Each index names another, which the server makes up as it is asked: no digest can be right, so the depth
        // is bounded by honest nesting instead.
        var bytes = Array(try JSONEncoder().encode(ImageIndex(mediaType: .imageIndex, manifests: [])))
        var all: [Digest: [UInt8]] = [:]
        for _ in 0..<6 {
            let digest = Digest.hash(of: bytes)
            all[digest] = bytes
            let child = Descriptor(mediaType: .imageIndex, digest: digest, size: Int64(bytes.count))
            bytes = Array(try JSONEncoder().encode(ImageIndex(mediaType: .imageIndex, manifests: [child])))
        }
        let (top, known) = (bytes, all)
        try await pull({ request in
            if request.uri.contains("/manifests/1.0?") { return .init(body: top) }
            let found = known.first { request.uri.contains("/\($0.key)?") }
            return found.map { .init(body: $0.value) } ?? .init(status: .notFound)
        }) { result, _ in
            #expect(failure(result).contains("deep"))
        }
    }

    @Test func nobodyListens() async throws {
        // A port the system gives nobody by itself: one that was given back may be another test's by now.
        let endpoint = RegistryEndpoint(authority: "127.0.0.1:1")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let client = RegistryClient(logger: logger)
        var limits = ImagePull.Limits()
        limits.backoff = .milliseconds(1)
        let pull = ImagePull(
            client: client, endpoint: endpoint, store: InMemoryContentStore(), limits: limits, logger: logger)
        await #expect(throws: PullError.self) {
            try await pull.run(try Reference(parsing: "docker.io/library/demo:1.0"))
        }
        await client.shutdown()
    }
}
