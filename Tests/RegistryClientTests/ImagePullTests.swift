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
        platforms: PlatformSelection = .current,
        limits: ImagePull.Limits? = nil,
        authorization: String? = nil,
        report: @escaping @Sendable (PullEvent) -> Void = { _ in },
        check: (Result<PullReport, any Error>, ScriptedServer) async throws -> Void
    ) async throws {
        let server = try await ScriptedServer(script)
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        // No test is about how long something takes.
        let client = RegistryClient(
            connectTimeout: .seconds(60), idleTimeout: .seconds(120), authorization: authorization, logger: logger)
        var bounds = limits ?? ImagePull.Limits()
        bounds.backoff = .milliseconds(1)
        let pull = ImagePull(
            client: client, endpoint: RegistryEndpoint(authority: server.authority), store: store,
            platforms: platforms, limits: bounds,
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
            case .tooMuch: "its descriptor says 3000000"
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

    /// A registry's content by digest, with one tag.
    private struct Registry: Sendable {
        private(set) var contents: [String: [UInt8]] = [:]
        var top: [UInt8] = []

        mutating func add(_ bytes: [UInt8], as type: MediaType, for platform: Platform? = nil) -> Descriptor {
            contents["\(Digest.hash(of: bytes))"] = bytes
            return Descriptor(
                mediaType: type, digest: Digest.hash(of: bytes), size: Int64(bytes.count), platform: platform)
        }

        mutating func remove(_ descriptor: Descriptor) { contents["\(descriptor.digest)"] = nil }

        /// An image of two layers, of which one is foreign if wished.
        mutating func image(
            _ name: String, for platform: Platform? = nil, hasForeignLayer: Bool = false
        ) throws -> (manifest: Descriptor, layer: Descriptor) {
            let config = add(Array("{\"name\":\"\(name)\"}".utf8), as: .imageConfig)
            let layer = add(Array("layer of \(name)".utf8), as: .layer)
            var layers = [layer]
            if hasForeignLayer {
                layers.append(
                    Descriptor(
                        mediaType: .dockerForeignLayerGzip, digest: Digest.hash(of: Array("foreign".utf8)), size: 7,
                        urls: ["https://example.com/layer"]))
            }
            let manifest = try JSONEncoder().encode(
                ImageManifest(mediaType: .imageManifest, config: config, layers: layers))
            top = Array(manifest)
            return (add(Array(manifest), as: .imageManifest, for: platform), layer)
        }

        mutating func index(_ manifests: [Descriptor]) throws -> Descriptor {
            top = Array(try JSONEncoder().encode(ImageIndex(mediaType: .imageIndex, manifests: manifests)))
            return add(top, as: .imageIndex)
        }

        func answer(_ request: ScriptedServer.Request) -> ScriptedServer.Response {
            if request.uri.contains("/manifests/1.0?") { return .init(body: top) }
            let name = request.uri.split(separator: "/").last?.prefix { $0 != "?" } ?? ""
            return contents[String(name)].map { .init(body: $0) } ?? .init(status: .notFound)
        }
    }

    private static let arm = Platform(architecture: "arm64", os: "linux")
    private static let intel = Platform(architecture: "amd64", os: "linux")
    private static let old = Platform(architecture: "arm", os: "linux", variant: "v6")

    /// A node has one platform of an index: that one is pulled, whatever else the index names.
    @Test(arguments: [arm, intel]) func onePlatformOfAnIndex(platform: Platform) async throws {
        var registry = Registry()
        var manifests: [Descriptor] = []
        for other in [Self.arm, Self.intel, Self.old] {
            let image = try registry.image("\(other)", for: other)
            manifests.append(image.manifest)
            if other != platform { registry.remove(image.manifest) }
        }
        _ = try registry.index(manifests)
        let (server, wanted) = (registry, manifests.first { $0.platform == platform })
        try await pull(server.answer, platforms: .only(platform)) { result, _ in
            let report = try result.get()
            #expect(report.contents.map(\.role).map(\.rawValue).sorted() == ["config", "index", "layer", "manifest"])
            #expect(report.contents.contains { $0.descriptor.digest == wanted?.digest })
            #expect(report.omissions.map(\.reason) == [.otherPlatform, .otherPlatform])
        }
        let absent = try #require([Self.arm, Self.intel].first { $0 != platform })
        try await pull(server.answer, platforms: .only(absent)) { result, _ in
            #expect(failure(result).contains("for \(absent)"))
        }
        try await pull(server.answer, platforms: .only(Platform(architecture: "s390x", os: "linux"))) { result, _ in
            #expect(failure(result).contains("linux/amd64, linux/arm/v6, linux/arm64"))
        }
        try await pull(server.answer, platforms: .all) { result, _ in
            let report = try result.get()
            #expect(report.omissions.map(\.reason) == [.absent, .absent])
        }
    }

    /// A platform of which the server lacks a layer is named, and not half there.
    @Test func anIncompletePlatformIsLeftOut() async throws {
        var registry = Registry()
        let whole = try registry.image("whole", for: Self.intel)
        let part = try registry.image("part", for: Self.arm)
        _ = try registry.index([whole.manifest, part.manifest])
        registry.remove(part.layer)
        let server = registry
        let store = InMemoryContentStore()
        try await pull(server.answer, store: store, platforms: .all) { result, _ in
            let omissions = try result.get().omissions
            #expect(omissions.map(\.reason) == [.incomplete(absent: 1)])
            #expect(omissions.first?.descriptor.digest == part.manifest.digest)
            #expect(try await store.info(part.manifest.digest) == nil)
            #expect(try await store.info(whole.manifest.digest) != nil)
        }
        try await pull(server.answer, platforms: .only(Self.arm)) { result, _ in
            #expect(failure(result).contains("not found"))
        }
    }

    @Test func aForeignLayerIsNamed() async throws {
        var registry = Registry()
        _ = try registry.image("windows", hasForeignLayer: true)
        let server = registry
        try await pull(server.answer) { result, _ in
            let report = try result.get()
            #expect(report.contents.count == 3)
            #expect(report.omissions.map(\.reason) == [.foreign])
            #expect(report.omissions.first?.descriptor.urls == ["https://example.com/layer"])
        }
    }

    /// Indexes as deep as a registry serves them.
    @Test func indexesInIndexes() async throws {
        var registry = Registry()
        var child = try registry.image("deep", for: .current).manifest
        for _ in 0..<50 { child = try registry.index([child]) }
        let server = registry
        try await pull(server.answer) { result, _ in
            let report = try result.get()
            #expect(report.contents.count == 53)
        }
        var limits = ImagePull.Limits()
        limits.contents = 20
        try await pull(server.answer, limits: limits) { result, _ in
            #expect(failure(result).contains("more than 20 pieces"))
        }
        limits = ImagePull.Limits()
        limits.manifestBytes = 1000
        try await pull(server.answer, limits: limits) { result, _ in
            #expect(failure(result).contains("more than 1000 bytes of manifests"))
        }
    }

    /// Content whose digest is right and whose descriptor has another size.
    @Test(arguments: [true, false]) func aWrongSizeIsSaid(isLayer: Bool) async throws {
        var registry = Registry()
        var wrong = try isLayer ? registry.add([1, 2, 3], as: .layer) : registry.image("child").manifest
        let actual = wrong.size
        wrong.size += 10
        if isLayer {
            let config = registry.add(Array("{}".utf8), as: .imageConfig)
            registry.top = Array(
                try JSONEncoder().encode(
                    ImageManifest(mediaType: .imageManifest, config: config, layers: [wrong])))
        } else {
            _ = try registry.index([wrong])
        }
        let server = registry
        try await pull(server.answer) { result, _ in
            #expect(failure(result).contains("has \(actual) bytes, but its descriptor says \(wrong.size)"))
        }
    }

    @Test func credentials() async throws {
        let image = try Image()
        let script: @Sendable (ScriptedServer.Request) -> ScriptedServer.Response = { request in
            request.headers.first(name: "authorization") == "Basic YTpi"
                ? image.answer(request) : .init(status: .unauthorized)
        }
        try await pull(script) { result, _ in #expect(failure(result).contains("wants credentials")) }
        try await pull(script, authorization: "Basic eA==") { result, _ in
            #expect(failure(result).contains("refuses these credentials"))
        }
        try await pull(script, authorization: "Basic YTpi") { result, _ in _ = try result.get() }
    }

    @Test(
        arguments: [
            ("linux/amd64", "linux/amd64"), ("linux/arm64/v8", "linux/arm64"), ("Linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"), ("windows/amd64", "windows/amd64"), ("linux", nil), ("linux/", nil),
            ("a/b/c/d", nil), ("linux/amd 64", nil),
        ] as [(String, String?)])
    func platforms(text: String, parsed: String?) {
        #expect(Platform(parsing: text)?.description == parsed)
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
        let error = await #expect(throws: PullError.self) {
            try await pull.run(try Reference(parsing: "docker.io/library/demo:1.0"))
        }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.hasSuffix(": Connection refused"), "\(text)")
        await client.shutdown()
    }
}
