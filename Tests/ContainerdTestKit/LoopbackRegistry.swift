import ContentStoreConformance
import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution

/// A registry on the loopback interface that a test fills, and that holds back what the test tells it to: half of a blob is
/// sent, the rest when it is released. So a pull is under way for as long as the test wants.
public final class LoopbackRegistry: Sendable {
    struct State {
        var contents: [String: SampleContent.Blob] = [:]
        var tags: [String: Digest] = [:]
        var held: Set<String> = []
        var waiting: [String: [EventLoopPromise<Void>]] = [:]
        var requests: [String] = []
    }

    let state: NIOLockedValueBox<State>
    private let channel: any Channel

    private init(channel: any Channel, state: NIOLockedValueBox<State>) {
        self.channel = channel
        self.state = state
    }

    /// Starts a registry on a free port.
    public static func start() async throws -> LoopbackRegistry {
        let state = NIOLockedValueBox(State())
        let channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(RegistryHandler(state: state))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return LoopbackRegistry(channel: channel, state: state)
    }

    /// `127.0.0.1:<port>`, as in an image's name.
    public var host: String { "127.0.0.1:\(channel.localAddress?.port ?? 0)" }

    /// Paths that were asked for, with their methods, in order.
    public var requests: [String] { state.withLockedValue { $0.requests } }

    /// Adds content, and a tag for it.
    public func add(_ blobs: [SampleContent.Blob], repository: String? = nil, tag: String? = nil, target: Digest? = nil)
    {
        state.withLockedValue { state in
            for blob in blobs { state.contents[blob.digest.description] = blob }
            if let repository, let tag, let target { state.tags["\(repository):\(tag)"] = target }
        }
    }

    /// Holds back the second half of content.
    public func hold(_ digests: [Digest]) {
        state.withLockedValue { $0.held.formUnion(digests.map(\.description)) }
    }

    /// Sends what was held back.
    public func release(_ digests: [Digest]) {
        let promises = state.withLockedValue { state -> [EventLoopPromise<Void>] in
            digests.flatMap { digest in
                state.held.remove(digest.description)
                return state.waiting.removeValue(forKey: digest.description) ?? []
            }
        }
        promises.forEach { $0.succeed() }
    }

    /// How many downloads wait for a release.
    public var waitingDownloads: Int { state.withLockedValue { $0.waiting.values.reduce(0) { $0 + $1.count } } }

    /// Stops listening and closes all connections.
    public func stop() async throws {
        release(state.withLockedValue { $0.held }.compactMap { Digest($0) })
        try await channel.close()
    }
}

private final class RegistryHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let state: NIOLockedValueBox<LoopbackRegistry.State>

    init(state: NIOLockedValueBox<LoopbackRegistry.State>) { self.state = state }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(let head) = unwrapInboundIn(data) else { return }
        let path = String(head.uri.prefix { $0 != "?" })
        let (blob, gate) = state.withLockedValue { state -> (SampleContent.Blob?, EventLoopFuture<Void>?) in
            state.requests.append("\(head.method.rawValue) \(path)")
            guard let blob = Self.find(path, state) else { return (nil, nil) }
            guard state.held.contains(blob.digest.description), head.method == .GET else { return (blob, nil) }
            let promise = context.eventLoop.makePromise(of: Void.self)
            state.waiting[blob.digest.description, default: []].append(promise)
            return (blob, promise.futureResult)
        }
        if path == "/v2/" { return respond(context, .ok, ["content-length": "0"]) }
        guard let blob else { return respond(context, .notFound, ["content-length": "0"]) }
        let isManifest = path.contains("/manifests/")
        let headers = HTTPHeaders([
            ("content-length", "\(blob.bytes.count)"), ("docker-content-digest", "\(blob.digest)"),
            ("content-type", isManifest ? "\(blob.descriptor.mediaType)" : "application/octet-stream"),
        ])
        context.write(
            wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .ok, headers: headers))), promise: nil)
        guard head.method == .GET else { return context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil) }
        let half = gate == nil ? blob.bytes.count : blob.bytes.count / 2
        context.writeAndFlush(
            wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: blob.bytes[..<half])))), promise: nil)
        let rest = ByteBuffer(bytes: blob.bytes[half...])
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        (gate ?? context.eventLoop.makeSucceededVoidFuture()).whenComplete { _ in
            let (handler, context) = bound.value
            if rest.readableBytes > 0 {
                context.write(handler.wrapOutboundOut(.body(.byteBuffer(rest))), promise: nil)
            }
            context.writeAndFlush(handler.wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    private func respond(_ context: ChannelHandlerContext, _ status: HTTPResponseStatus, _ headers: [String: String]) {
        let head = HTTPResponseHead(
            version: .http1_1, status: status, headers: HTTPHeaders(headers.map { ($0.key, $0.value) }))
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    private static func find(_ path: String, _ state: LoopbackRegistry.State) -> SampleContent.Blob? {
        for kind in ["/manifests/", "/blobs/"] where path.hasPrefix("/v2/") {
            guard let range = path.range(of: kind) else { continue }
            let name = String(path[range.upperBound...])
            if let blob = state.contents[name] { return blob }
            let repository = path[path.index(path.startIndex, offsetBy: 4)..<range.lowerBound]
            if let digest = state.tags["\(repository):\(name)"] { return state.contents[digest.description] }
        }
        return nil
    }
}
