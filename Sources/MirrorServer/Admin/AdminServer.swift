import HTTPServer
import Logging
import NIOCore
import NIOHTTP1
import ServiceLifecycle

/// The HTTP server of metrics and status pages: a table of routes, with the same limits and lifecycle as
/// ``RegistryServer``.
public final class AdminServer: Service, Sendable {
    /// A whole response in memory.
    public struct Response: Sendable {
        /// The status.
        public var status: HTTPResponseStatus
        /// `Content-Type`.
        public var contentType: String
        /// Further header fields.
        public var fields: [(name: String, value: String)]
        /// The body.
        public var body: ByteBuffer

        /// A response.
        public init(
            _ status: HTTPResponseStatus = .ok, contentType: String = "text/plain; charset=utf-8",
            fields: [(name: String, value: String)] = [], body: ByteBuffer
        ) {
            self.status = status
            self.contentType = contentType
            self.fields = fields
            self.body = body
        }
    }

    /// A path and the handler of its GET and HEAD, or of its POST requests.
    public struct Route: Sendable {
        /// Answers a request. Runs as a task, which is cancelled when the client disconnects;
        /// `HTTPLimits.responseTimeout` bounds it.
        public typealias Handler = @Sendable (RequestHead) async throws -> Response

        let path: String
        let isPost: Bool
        let handler: Handler

        /// A route.
        ///
        /// - Parameters:
        ///   - path: the path of the request without query; one that ends in `/` also answers for all paths below it
        ///     that have no route of their own.
        ///   - isPost: whether it answers POST requests, whose body is dropped, in the place of GET and HEAD.
        ///   - handler: answers; if it throws, the response is a `500`.
        public init(_ path: String, isPost: Bool = false, handler: @escaping Handler) {
            self.path = path
            self.isPost = isPost
            self.handler = handler
        }
    }

    private let core: HTTPServerCore

    /// A server that is not started yet. Of two routes with the same path the later one counts.
    public init(
        name: String = "metrics", configuration: HTTPServerConfiguration, routes: [Route],
        observer: (any RequestObserver)? = nil, logger: Logger
    ) {
        core = HTTPServerCore(
            name: name, configuration: configuration, responder: RouteTable(routes: routes, logger: logger),
            observer: observer, logger: logger)
    }

    /// Starts to listen; see ``RegistryServer/start()``.
    ///
    /// - Throws: `ListenError` when an address cannot be listened on; `LifecycleError`.
    @discardableResult
    public func start() async throws -> [SocketAddress] { try await core.start() }

    /// The addresses that are listened on; empty when the server does not run.
    public var addresses: [SocketAddress] { core.addresses }

    /// Stops; see ``RegistryServer/shutdown(gracePeriod:)``.
    public func shutdown(gracePeriod: Duration? = nil) async {
        await core.shutdown(gracePeriod: gracePeriod)
    }

    /// Serves until shut down; see ``RegistryServer/run()``.
    ///
    /// - Throws: as ``start()``.
    public func run() async throws { try await core.run() }
}

/// Finds the route for a path: the exact one, else the longest one ending in `/` that the path begins with.
struct RouteTable: RequestResponder {
    private let exact: [String: AdminServer.Route]
    /// Longest first.
    private let prefixes: [AdminServer.Route]
    private let logger: Logger

    init(routes: [AdminServer.Route], logger: Logger) {
        exact = Dictionary(routes.map { ($0.path, $0) }, uniquingKeysWith: { $1 })
        prefixes = exact.values.filter { $0.path.hasSuffix("/") }.sorted { $0.path.utf8.count > $1.path.utf8.count }
        self.logger = logger
    }

    func respond(to exchange: HTTPExchange) {
        let request = exchange.request
        let path = String(request.path)
        guard let route = exact[path] ?? prefixes.first(where: { path.hasPrefix($0.path) }) else {
            exchange.begin(handler: "unknown")
            return exchange.fail(.notFound, "no such path")
        }
        exchange.begin(handler: route.path)
        guard route.isPost ? request.method == .POST : request.method == .GET || request.method == .HEAD else {
            return exchange.fail(
                .methodNotAllowed,
                route.isPost ? "only POST is supported here" : "only GET and HEAD are supported here")
        }
        let logger = self.logger
        let task = Task {
            do {
                let response = try await route.handler(request)
                exchange.eventLoop.execute {
                    var head = ResponseHead(response.status, contentLength: 0, contentType: response.contentType)
                    head.fields = response.fields
                    exchange.send(head, body: response.body)
                }
            } catch {
                guard !Task.isCancelled else { return }
                logger.warning("a request failed", metadata: ["path": "\(path)", "error": "\(error)"])
                exchange.eventLoop.execute {
                    if !exchange.isHeadWritten { exchange.fail(.internalServerError, "the request failed") }
                }
            }
        }
        exchange.onEnd { task.cancel() }
    }

    func errorBody(_ status: HTTPResponseStatus, message: String) -> (contentType: String, body: ByteBuffer) {
        ("text/plain; charset=utf-8", ByteBuffer(string: message + "\n"))
    }
}
