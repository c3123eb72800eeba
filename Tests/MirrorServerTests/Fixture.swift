import ContentStore
import Foundation
import HTTPTestKit
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import OCIDistribution
import Testing

@testable import MirrorServer

/// One image in memory: a manifest, its config and one layer.
struct Fixture {
    static let repository = "library/demo"
    let store: InMemoryContentStore
    let manifest: ByteBuffer
    let manifestDigest: Digest
    let layer: ByteBuffer
    let layerDigest: Digest
    let configDigest: Digest

    init(layerBytes: Int = 1000) async throws {
        store = InMemoryContentStore()
        let config = ByteBuffer(
            string: #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#)
        layer = ByteBuffer(bytes: (0..<layerBytes).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        configDigest = Digest.hash(of: config.readableBytesView)
        layerDigest = Digest.hash(of: layer.readableBytesView)
        manifest = ByteBuffer(
            string: """
                {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":\
                {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\(configDigest)",\
                "size":\(config.readableBytes)},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",\
                "digest":"\(layerDigest)","size":\(layer.readableBytes)}]}
                """)
        manifestDigest = Digest.hash(of: manifest.readableBytesView)
        try await store.write(config, as: configDigest)
        try await store.write(layer, as: layerDigest)
        try await store.write(manifest, as: manifestDigest)
        let target = Descriptor(
            mediaType: .imageManifest, digest: manifestDigest, size: Int64(manifest.readableBytes))
        try await store.tag(target, as: Reference(parsing: "docker.io/\(Self.repository):1.0"))
    }

    var manifestPath: String { "/v2/\(Self.repository)/manifests/\(manifestDigest)?ns=docker.io" }
    var tagPath: String { "/v2/\(Self.repository)/manifests/1.0?ns=docker.io" }
    var layerPath: String { "/v2/\(Self.repository)/blobs/\(layerDigest)?ns=docker.io" }
}

/// A store of one blob in a file, that answers immediately or asynchronously, or fails.
final class FileStore: ContentStore {
    enum Mode { case immediate, asynchronous, failing, stalling }

    let path: String
    let digest: Digest
    let size: Int64
    private let mode: Mode

    /// Writes `size` bytes in a pattern to a new temporary file.
    init(size: Int, mode: Mode = .immediate) throws {
        path = NSTemporaryDirectory() + "mirror-server-test-\(UUID().uuidString)"
        let bytes = Self.bytes(0..<size)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        digest = Digest.hash(of: bytes)
        self.size = Int64(size)
        self.mode = mode
    }

    deinit { unlink(path) }

    /// A pattern whose period is no power of two, so that a piece in the wrong place shows.
    private static let period: [UInt8] = (0..<65_521).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }

    /// The bytes that a file has in `range`.
    static func bytes(_ range: Range<Int>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(range.count)
        while bytes.count < range.count {
            let start = (range.lowerBound + bytes.count) % period.count
            bytes += period[start..<min(period.count, start + range.count - bytes.count)]
        }
        return bytes
    }

    var blobPath: String { "/v2/library/big/blobs/\(digest)?ns=docker.io" }

    private func content() -> OpenContent? {
        let descriptor = Glibc.open(path, O_RDONLY)
        guard descriptor >= 0 else { return nil }
        return OpenContent(
            info: ContentInfo(digest: digest, size: size, mediaType: .octetStream),
            body: .file(ContentFile(takingOwnershipOf: descriptor, size: size)))
    }

    func resolve(_ reference: Reference) async throws -> Descriptor? { nil }
    func info(_ digest: Digest) async throws -> ContentInfo? { try await open(digest)?.info }
    func open(_ digest: Digest) async throws -> OpenContent? {
        switch mode {
        case .failing: throw ContentStoreError.writerClosed
        case .stalling:
            try await Task.sleep(for: .seconds(3600))
            return nil
        case .immediate, .asynchronous: return digest == self.digest ? content() : nil
        }
    }
    func images() async throws -> [StoredImage] { [] }
    func contents(of image: StoredImage) async throws -> [ContentInfo] { [] }
    func events() -> ContentEvents { InMemoryContentStore().events() }
    func openImmediately(_ digest: Digest) -> ImmediateAnswer<OpenContent> {
        guard mode == .immediate else { return .unknown }
        guard digest == self.digest, let content = content() else { return .absent }
        return .found(content)
    }
}

/// Runs `body` with a server on a port of the loopback address, and stops it.
func withServer<Result>(
    store: any ContentStore,
    limits: HTTPLimits = HTTPLimits(),
    missHandler: (any MissHandler)? = nil,
    observer: (any RequestObserver)? = nil,
    isReady: @escaping @Sendable () -> Bool = { true },
    configure: (inout RegistryServer.Configuration) -> Void = { _ in },
    _ body: (RegistryServer, Int) async throws -> Result
) async throws -> Result {
    var configuration = RegistryServer.Configuration(
        http: HTTPServerConfiguration(
            listen: [ListenAddress(host: "127.0.0.1", port: 0)], limits: limits,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton))
    configure(&configuration)
    let server = RegistryServer(
        configuration: configuration, store: store, missHandler: missHandler, observer: observer, logger: quiet,
        isReady: isReady)
    let port = try #require(try await server.start().first?.port)
    do {
        let result = try await body(server, port)
        await server.shutdown(gracePeriod: .zero)
        return result
    } catch {
        await server.shutdown(gracePeriod: .zero)
        throw error
    }
}
