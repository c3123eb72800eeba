import ContentStore
import HTTPServer
import Logging
import NIOCore
import NIOHTTP1
import OCIDistribution
import Synchronization

/// Answers the requests of a registry: health checks, authentication, filters, the local store, and then the miss handler.
final class RegistryResponder: RequestResponder {
    private let store: any ContentStore
    private let missHandler: (any MissHandler)?
    private let logger: Logger
    private let isReady: @Sendable () -> Bool
    private let options: DistributionRequest.Options
    private let filter: ReferenceFilter
    private let credentials: BasicCredentials?
    private let metrics: MirrorMetrics?
    private let coldStart: ColdStart?
    private let uploadLimit: Int
    private let uploads = Atomic<Int>(0)
    private let peerTags = Mutex(PeerTags())

    init(
        configuration: RegistryServer.Configuration, store: any ContentStore, missHandler: (any MissHandler)?,
        logger: Logger, isReady: @escaping @Sendable () -> Bool
    ) {
        self.store = store
        self.missHandler = missHandler
        self.logger = logger
        self.isReady = isReady
        options = DistributionRequest.Options(defaultRegistry: configuration.defaultRegistry)
        filter = configuration.filter
        credentials = configuration.credentials
        metrics = configuration.metrics
        coldStart = configuration.coldStart
        uploadLimit = max(1, configuration.concurrentUploads)
    }

    // MARK: RequestResponder

    func respond(to exchange: HTTPExchange) {
        let head = exchange.request
        if !head.target.hasPrefix("/v2"), let health = healthCheck(head.path) {
            exchange.begin(handler: health.handler)
            guard isRead(head.method) else { return refuseMethod(exchange) }
            var response = ResponseHead(health.isGood ? .ok : .internalServerError, contentLength: 0)
            response.fields.append(("Cache-Control", "no-store"))
            return exchange.send(response, body: ByteBuffer())
        }
        if let credentials, !credentials.matches(head.fields["authorization"]) {
            exchange.begin(handler: "unauthorized")
            return fail(
                exchange, DistributionError(.unauthorized), fields: [("WWW-Authenticate", "Basic realm=\"spegel\"")])
        }
        guard isRead(head.method) else {
            exchange.begin(handler: "unknown")
            return refuseMethod(exchange)
        }
        let request: DistributionRequest
        do {
            request = try DistributionRequest(parsing: head.target, options: options)
        } catch {
            exchange.begin(handler: "unknown")
            return fail(exchange, error)
        }
        switch request.kind {
        case .base:
            exchange.begin(handler: "v2")
            var response = ResponseHead(.ok, contentLength: 0, contentType: "application/json")
            response.fields.append(("Docker-Distribution-Api-Version", "registry/2.0"))
            exchange.send(response, body: ByteBuffer(string: "{}"))
        case .manifest:
            exchange.begin(handler: "manifest")
            serve(Lookup(responder: self, request: request, exchange: exchange, range: nil))
        case .tags(let repository, let page):
            exchange.begin(handler: "tags")
            listTags(of: repository, registry: request.registry ?? "", page: page, exchange)
        case .blob:
            exchange.begin(handler: "blob")
            do {
                let range = try rangeHeader(of: head, digest: request.digest)
                serve(Lookup(responder: self, request: request, exchange: exchange, range: range))
            } catch {
                fail(exchange, error.distributionError)
            }
        }
    }

    func errorBody(_ status: HTTPResponseStatus, message: String) -> (contentType: String, body: ByteBuffer) {
        let code: DistributionErrorCode =
            switch status {
            case .serviceUnavailable, .gatewayTimeout: .unavailable
            case .tooManyRequests: .tooManyRequests
            case .badRequest, .uriTooLong, .requestHeaderFieldsTooLarge, .notImplemented, .httpVersionNotSupported,
                .expectationFailed:
                .unsupported
            default: .unknown
            }
        return ("application/json", ByteBuffer(bytes: DistributionError(code, message: message).jsonBody))
    }

    // MARK: Before the store

    private func isRead(_ method: HTTPMethod) -> Bool { method == .GET || method == .HEAD }

    private func healthCheck(_ path: Substring) -> (handler: String, isGood: Bool)? {
        switch path {
        case "/livez": ("livez", true)
        case "/readyz": ("readyz", isReady())
        default: nil
        }
    }

    private func refuseMethod(_ exchange: HTTPExchange) {
        let error = DistributionError(
            .unsupported, message: "the method \(exchange.request.method.rawValue.prefix(32)) is not supported")
        fail(exchange, error, fields: [("Allow", "GET, HEAD")])
    }

    /// The range a blob is asked for by. RFC 9110 §14.2: only GET has ranges, and one whose `If-Range` names other
    /// content is ignored.
    private func rangeHeader(of head: RequestHead, digest: Digest?) throws(ByteRangeError) -> ByteRange? {
        guard head.method == .GET else { return nil }
        let values = head.fields.values(of: "range")
        guard let value = values.first else { return nil }
        guard values.count == 1 else { throw .multiple(input: values.joined(separator: ", ")) }
        if let condition = head.fields["if-range"], condition != digest.map({ "\"\($0)\"" }) { return nil }
        return try ByteRange.parse(value)
    }

    private func allows(_ request: DistributionRequest) -> Bool {
        if filter.isUnrestricted { return true }
        guard let registry = request.registry, let repository = request.repository else { return false }
        return filter.allows(registry: registry, repository: repository, tag: request.tag)
    }

    // MARK: The store

    /// One request for content.
    private struct Lookup: Sendable {
        let responder: RegistryResponder
        let request: DistributionRequest
        let exchange: HTTPExchange
        let range: ByteRange?

        var isManifest: Bool { if case .manifest = request.kind { true } else { false } }
        /// Whether a peer asks, which is answered from the local store only.
        var isFromPeer: Bool { exchange.request.fields["x-spegel-mirrored"]?.lowercased() == "true" }
    }

    private func serve(_ lookup: Lookup) {
        guard allows(lookup.request) else {
            if !lookup.isFromPeer { metrics?.miss(lookup.request, clients: 1, reason: .filtered) }
            lookup.exchange.note(MissReason.filtered.rawValue)
            return fail(lookup, "the reference is not mirrored here")
        }
        if let digest = lookup.request.digest { return open(digest, for: lookup) }
        guard let reference = lookup.request.reference else {
            return fail(lookup, "the registry of the tag is not known; add ?ns=REGISTRY to the request")
        }
        switch store.resolveImmediately(reference) {
        case .found(let target): open(target.digest, for: lookup)
        case .absent: miss(lookup)
        case .unknown:
            ask(lookup) {
                try await $0.resolve(reference)
            } then: { target in
                if let target { self.open(target.digest, for: lookup) } else { self.miss(lookup) }
            }
        }
    }

    private func open(_ digest: Digest, for lookup: Lookup) {
        switch store.openImmediately(digest) {
        case .found(let content): send(content, for: lookup)
        case .absent: miss(lookup)
        case .unknown:
            ask(lookup) {
                try await $0.open(digest)
            } then: { content in
                if let content { self.send(content, for: lookup) } else { self.miss(lookup) }
            }
        }
    }

    /// Asks the store asynchronously and continues on the event loop. A store that fails counts as one without the
    /// content, because a peer may have it.
    private func ask<Answer: Sendable>(
        _ lookup: Lookup,
        _ question: @escaping @Sendable (any ContentStore) async throws -> Answer?,
        then proceed: @escaping @Sendable (Answer?) -> Void
    ) {
        let (store, logger, exchange) = (self.store, self.logger, lookup.exchange)
        let task = Task {
            let answer: Answer?
            do {
                answer = try await question(store)
            } catch is CancellationError {
                return
            } catch {
                logger.warning(
                    "the store failed", metadata: ["path": "\(exchange.request.target)", "error": "\(error)"])
                answer = nil
            }
            exchange.eventLoop.execute {
                if exchange.isOpen { proceed(answer) }
            }
        }
        exchange.onEnd { task.cancel() }
    }

    /// Lists the tags of a repository that this node's store has, and those that peers have answered for through this node.
    private func listTags(of repository: String, registry: String, page: TagPage, _ exchange: HTTPExchange) {
        let (store, filter, logger) = (self.store, self.filter, self.logger)
        let task = Task {
            let images: [StoredImage]
            do {
                images = try await store.images()
            } catch {
                logger.warning(
                    "the store failed", metadata: ["path": "\(exchange.request.target)", "error": "\(error)"])
                images = []
            }
            var tags = self.peerTags.withLock {
                $0.tags(of: repository, registry: registry, now: .now)
            }.filter { filter.allows(registry: registry, repository: repository, tag: $0) }
            let own = images.compactMap { image -> String? in
                let reference = image.reference
                guard reference.registry == registry, reference.repository == repository, reference.digest == nil,
                    filter.allows(reference)
                else { return nil }
                return reference.tag
            }
            tags.formUnion(own)
            let sorted = tags.sorted()
            exchange.eventLoop.execute {
                guard exchange.isOpen else { return }
                guard !sorted.isEmpty else {
                    return self.fail(
                        exchange,
                        DistributionError(.nameUnknown, message: "no tag of \(registry)/\(repository) is known here"))
                }
                self.send(sorted, of: repository, registry: registry, page: page, exchange)
            }
        }
        exchange.onEnd { task.cancel() }
    }

    private func send(
        _ tags: [String], of repository: String, registry: String, page: TagPage, _ exchange: HTTPExchange
    ) {
        let rest = page.last.map { last in tags.drop { $0 <= last } } ?? tags[...]
        let part = Array(rest.prefix(page.count))
        var body: [UInt8] = []
        JSONValue.object(["name": .string(repository), "tags": .array(part.map { .string($0) })]).write(to: &body)
        var head = ResponseHead(.ok, contentLength: Int64(body.count), contentType: "application/json")
        if part.count < rest.count, let last = part.last {
            let next = "/v2/\(repository)/tags/list?ns=\(registry)&n=\(page.count)&last=\(last)"
            head.fields.append(("Link", "<\(next)>; rel=\"next\""))
        }
        exchange.send(head, body: ByteBuffer(bytes: body))
    }

    private func miss(_ lookup: Lookup) {
        let head = lookup.exchange.request
        guard let missHandler, !lookup.isFromPeer else {
            if let coldStart, lookup.isFromPeer, head.method == .GET, let digest = lookup.request.digest {
                return serveArriving(digest, coldStart, for: lookup)
            }
            lookup.exchange.note(RequestLog.localReason)
            return fail(lookup, nil)
        }
        if let tag = lookup.request.reference, tag.digest == nil {
            let exchange = lookup.exchange
            exchange.onEnd {
                guard let status = exchange.status, status == .ok || status == .notFound else { return }
                self.peerTags.withLock { $0.record(tag, isThere: status == .ok, now: .now) }
            }
        }
        missHandler.handleMiss(
            MissRequest(
                distribution: lookup.request, isHead: head.method == .HEAD, range: lookup.range, head: head,
                remoteAddress: lookup.exchange.remoteAddress),
            response: lookup.exchange)
    }

    /// Serves another node what this node's container runtime is fetching.
    private func serveArriving(_ digest: Digest, _ coldStart: ColdStart, for lookup: Lookup) {
        ask(lookup) { _ in
            await coldStart.open(digest, isWhole: lookup.isManifest)
        } then: { content in
            let exchange = lookup.exchange
            guard let content else {
                exchange.note(RequestLog.localReason)
                return self.fail(lookup, nil)
            }
            exchange.onEnd { coldStart.served(digest, bytes: exchange.bodyBytes, to: exchange.remoteAddress.ipText) }
            self.send(content, for: lookup)
        }
    }

    // MARK: Answers

    private func send(_ content: OpenContent, for lookup: Lookup) {
        let info = content.info
        let exchange = lookup.exchange
        // A blob is bytes, whatever they look like: artifacts carry manifests as layers.
        guard !lookup.isManifest || info.mediaType.isManifest || info.mediaType.isDockerSchema1 else {
            return fail(lookup, "\(info.digest) is no manifest")
        }
        var head = ResponseHead(.ok, contentLength: info.size)
        head.contentType = lookup.isManifest ? info.mediaType.rawValue : "application/octet-stream"
        head.digest = info.digest
        head.namespace = lookup.request.registry
        head.acceptsRanges = !lookup.isManifest
        if let condition = exchange.request.fields["if-none-match"],
            EntityTag.ifNoneMatch(condition, names: info.digest)
        {
            head.status = .notModified
            exchange.writeHead(head)
            return exchange.finish()
        }
        var range = 0..<max(0, info.size)
        if let wanted = lookup.range {
            do {
                range = try wanted.resolve(size: info.size)
            } catch {
                let size = ContentRange.unsatisfied(size: info.size)
                return fail(exchange, error.distributionError, fields: [("Content-Range", "\(size)")])
            }
            head.status = .partialContent
            head.contentRange = .satisfied(range, size: info.size)
        }
        if case .bytes = content.body {
        } else if exchange.request.method != .HEAD, !reserveUpload(for: exchange) {
            return exchange.fail(.tooManyRequests, "too many uploads are running", retryAfterSeconds: 1)
        }
        if let metrics, lookup.isFromPeer {
            let request = lookup.request
            exchange.onEnd {
                metrics.served(request, bytes: exchange.bodyBytes, to: exchange.remoteAddress.ipText)
            }
        }
        exchange.send(head, body: content.body, range: range)
    }

    private func reserveUpload(for exchange: HTTPExchange) -> Bool {
        guard uploads.add(1, ordering: .relaxed).newValue <= uploadLimit else {
            uploads.subtract(1, ordering: .relaxed)
            return false
        }
        exchange.onEnd { self.uploads.subtract(1, ordering: .relaxed) }
        return true
    }

    private func fail(_ lookup: Lookup, _ reason: String?) {
        fail(
            lookup.exchange,
            DistributionError(
                lookup.isManifest ? .manifestUnknown : .blobUnknown, message: reason, httpStatus: 404))
    }

    private func fail(
        _ exchange: HTTPExchange, _ error: DistributionError, fields: [(name: String, value: String)] = []
    ) {
        exchange.send(error, fields: fields)
    }
}

extension ResponseWriter {
    /// Sends an error in the form of the OCI distribution specification ("Error codes") as the whole response.
    public func send(_ error: DistributionError, fields: [(name: String, value: String)] = []) {
        var head = ResponseHead(
            HTTPResponseStatus(statusCode: error.httpStatus), contentLength: 0, contentType: "application/json")
        head.fields = fields
        send(head, body: ByteBuffer(bytes: error.jsonBody))
    }
}
