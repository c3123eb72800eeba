import Logging
import NIOCore
import NIOHTTP1

/// Finds the route for a path: the exact one, else the longest one ending in `/` that the path begins with.
struct RouteTable: RequestResponder {
    private let exact: [String: AuxiliaryServer.Route]
    /// Longest first.
    private let prefixes: [AuxiliaryServer.Route]
    private let logger: Logger

    init(routes: [AuxiliaryServer.Route], logger: Logger) {
        exact = Dictionary(routes.map { ($0.path, $0) }, uniquingKeysWith: { $1 })
        prefixes = exact.values.filter { $0.path.hasSuffix("/") }.sorted { $0.path.utf8.count > $1.path.utf8.count }
        self.logger = logger
    }

    func respond(to exchange: HTTPExchange) {
        let request = exchange.request
        let path = String(request.path)
        guard let route = exact[path] ?? prefixes.first(where: { path.hasPrefix($0.path) }) else {
            exchange.begin(handler: "unknown")
            return exchange.fail(.notFound, "there is nothing at this path")
        }
        exchange.begin(handler: route.path)
        guard request.method == .GET || request.method == .HEAD else {
            return exchange.fail(.methodNotAllowed, "only GET and HEAD are supported here")
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
