import AsyncHTTPClient
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution
import ServiceSupport

/// Reads manifests and blobs from registry servers.
package final class RegistryClient: Sendable {
    /// Media types of manifests that are understood.
    static let acceptedManifests =
        [
            MediaType.imageIndex, .imageManifest, .dockerManifestList, .dockerManifest,
        ].map(\.rawValue) + ["*/*;q=0.1"]

    private let http: HTTPClient
    private let authorization: String?
    private let logger: Logger

    /// A client with at most `connections` to one server. It must be ended with ``shutdown()``.
    ///
    /// - Parameters:
    ///   - connections: Most connections to one server.
    ///   - connectTimeout: How long it may take to get a connection.
    ///   - idleTimeout: How long a transfer may make no progress before it counts as broken.
    ///   - authorization: The `Authorization` field of each request; a redirect to another origin does not carry it.
    ///   - logger: Receives messages about connections at debug level.
    package init(
        connections: Int = 8, connectTimeout: Duration = .seconds(5), idleTimeout: Duration = .seconds(30),
        authorization: String? = nil, logger: Logger
    ) {
        var configuration = HTTPClient.Configuration()
        configuration.httpVersion = .http1Only
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        // A failed connection is reported at once; the caller decides about another try.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.timeout = .init(connect: .init(connectTimeout), read: .init(idleTimeout))
        // The default buffer grows slowly from 2 KiB, which costs large blobs half their speed.
        configuration.http1_1ConnectionDebugInitializer = { channel in
            channel.setOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 512 * 1024))
        }
        http = HTTPClient(eventLoopGroup: MultiThreadedEventLoopGroup.singleton, configuration: configuration)
        self.authorization = authorization
        self.logger = logger
    }

    /// Ends all connections.
    package func shutdown() async {
        do {
            try await http.shutdown()
        } catch {
            logger.debug("shutting down the HTTP client", metadata: ["error": "\(error)"])
        }
    }

    /// A manifest and what it is called.
    package struct FetchedManifest: Sendable {
        package var descriptor: Descriptor
        package var bytes: ByteBuffer
        package var manifest: Manifest
    }

    /// Fetches a manifest or index.
    ///
    /// A digest that was asked for, or that the server names, is checked.
    ///
    /// - Throws: ``PullError``.
    package func manifest(
        _ reference: ManifestReference, repository: String, registry: String, from endpoint: RegistryEndpoint
    ) async throws(PullError) -> FetchedManifest {
        let url = endpoint.url(.manifest(repository: repository, reference), registry: registry)
        var request = HTTPClientRequest(url: url)
        request.headers.add(name: "accept", value: Self.acceptedManifests.joined(separator: ", "))
        let response = try await execute(request, timeout: .seconds(60))
        guard response.status == .ok else { throw await failure(response, url) }
        let bytes: ByteBuffer
        do {
            bytes = try await response.body.collect(upTo: Manifest.maximumSize)
        } catch is NIOTooManyBytesError {
            throw .tooLarge("\(url): more than \(Manifest.maximumSize) bytes of manifest")
        } catch {
            throw .unreachable(url: url, reason: Self.reason(error))
        }
        var expected: Digest?
        if case .digest(let digest) = reference {
            expected = digest
        } else if let header = response.headers.first(name: "docker-content-digest") {
            do {
                expected = try Digest(parsing: header)
            } catch {
                throw .badManifest(nil, reason: "\(url) has the header Docker-Content-Digest: \(header): \(error)")
            }
        }
        let actual = Digest.hash(expected?.algorithm ?? .sha256, of: bytes.readableBytesView)
        if let expected, expected != actual {
            throw .corrupt(expected, reason: "\(url) sent content with digest \(actual)")
        }
        do {
            // What the header says only helps where the document does not say itself.
            let manifest = try Manifest.decode(from: bytes.readableBytesView)
            let descriptor = Descriptor(
                mediaType: manifest.mediaType, digest: actual, size: Int64(bytes.readableBytes))
            return FetchedManifest(descriptor: descriptor, bytes: bytes, manifest: manifest)
        } catch {
            throw .badManifest(actual, reason: "\(error)")
        }
    }

    /// The bytes of a blob from an offset on, as they arrive.
    ///
    /// - Parameters:
    ///   - offset: How many bytes of the blob are there already.
    ///   - size: The size of the whole blob.
    ///   - receive: Takes each piece; the next one is read when it returns.
    /// - Throws: ``PullError``, or what `receive` throws.
    package func blob(
        _ digest: Digest, repository: String, registry: String, from endpoint: RegistryEndpoint, offset: Int64,
        size: Int64, receive: (ByteBuffer) async throws -> Void
    ) async throws {
        let url = endpoint.url(.blob(repository: repository, digest), registry: registry)
        var request = HTTPClientRequest(url: url)
        if offset > 0 {
            request.headers.add(name: "range", value: "bytes=\(offset)-")
        }
        let response = try await execute(request, timeout: nil)
        // A server may ignore the range: then what is there already comes again.
        var surplus = offset
        switch response.status {
        case .ok:
            // Said before the bytes: the digest cannot be right with another size.
            if let length = response.headers.first(name: "content-length").flatMap({ Int64($0) }), length != size {
                throw PullError.wrongSize(digest, described: size, actual: length)
            }
        case .partialContent where offset > 0:
            let header = response.headers.first(name: "content-range") ?? ""
            guard (try? ContentRange(parsing: header)) == .satisfied(offset..<size, size: size) else {
                throw PullError.status(
                    url: url, 206, "Content-Range is '\(header)', wanted \(offset)-\(size - 1)/\(size)")
            }
            surplus = 0
        default: throw await failure(response, url)
        }
        var received = offset - surplus
        var pieces = response.body.makeAsyncIterator()
        while true {
            let piece: ByteBuffer?
            do {
                piece = try await pieces.next()
            } catch {
                try Task.checkCancellation()
                throw PullError.unreachable(
                    url: url, reason: "broke off after \(received) of \(size) bytes: \(Self.reason(error))")
            }
            guard var piece else { break }
            received += Int64(piece.readableBytes)
            guard received <= size else {
                throw PullError.corrupt(
                    digest, reason: "\(url) sends more than the \(size) bytes that its descriptor says")
            }
            let skipped = min(surplus, Int64(piece.readableBytes))
            surplus -= skipped
            piece.moveReaderIndex(forwardBy: Int(skipped))
            if piece.readableBytes > 0 { try await receive(piece) }
        }
        guard received == size else {
            throw PullError.unreachable(url: url, reason: "ended after \(received) of \(size) bytes")
        }
    }

    private func execute(
        _ request: HTTPClientRequest, timeout: TimeAmount?
    ) async throws(PullError) -> HTTPClientResponse {
        var request = request
        if let authorization { request.headers.replaceOrAdd(name: "authorization", value: authorization) }
        do {
            let deadline = timeout.map { NIODeadline.now() + $0 } ?? .distantFuture
            return try await http.execute(request, deadline: deadline, logger: logger)
        } catch {
            throw .unreachable(url: request.url, reason: Self.reason(error))
        }
    }

    /// The reason of a failed request in words.
    private static func reason(_ error: any Error) -> String {
        (error as? HTTPClientError).map { $0.shortDescription.lowercased() } ?? plainReason(error)
    }

    private func failure(_ response: HTTPClientResponse, _ url: String) async -> PullError {
        if response.status == .notFound { return .notFound(url: url) }
        if response.status == .unauthorized {
            return .unauthorized(url: url, givenCredentials: authorization != nil)
        }
        let body = (try? await response.body.collect(upTo: 4096)).map { String(buffer: $0) } ?? ""
        return .status(url: url, Int(response.status.code), String(body.prefix(500)))
    }
}

extension TimeAmount {
    /// A duration of the standard library; what is too long becomes the longest there is.
    init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        self = overflow ? .nanoseconds(.max) : .nanoseconds(scaled &+ attoseconds / 1_000_000_000)
    }
}
