import ContentStore
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import NIOCore
import NIOPosix
import SwiftProtobuf

/// A connection to containerd, for calls in one namespace.
///
/// It connects with the first call. When the connection ends, so do its calls, and the owner makes another client: a lost
/// connection ends everything that depends on it.
package final class ContainerdClient: Sendable {
    /// The transport that all calls use.
    typealias Transport = HTTP2ClientTransport.Posix

    /// The largest response message in bytes. A list of images is one message; this is enough for more than 100,000.
    static let maximumMessageSize = 64 << 20

    let grpc: GRPCClient<Transport>
    let namespace: String
    let callTimeout: Duration

    /// Creates a client; ``run()`` must run for its calls to be made.
    ///
    /// - Parameters:
    ///   - socketPath: containerd's Unix domain socket.
    ///   - namespace: the namespace of images, content and leases.
    ///   - callTimeout: the timeout of unary calls.
    package init(socketPath: String, namespace: String, callTimeout: Duration) throws {
        var config = HTTP2ClientTransport.Posix.Config.defaults
        config.backoff = .init(initial: .milliseconds(50), max: .seconds(1), multiplier: 1.6, jitter: 0.2)
        config.connection.maxIdleTime = nil
        config.http2.authority = "localhost"
        config.channelDebuggingCallbacks.onCreateTCPConnection = { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(HTTP2PingResponder(), position: .first)
            }
        }
        let transport = try HTTP2ClientTransport.Posix(
            target: .unixDomainSocket(path: socketPath), transportSecurity: .plaintext, config: config)
        self.grpc = GRPCClient(transport: transport)
        self.namespace = namespace
        self.callTimeout = callTimeout
    }

    /// Serves the connection until ``shutdown()`` or cancellation.
    package func run() async throws { try await grpc.runConnections() }

    /// Ends the connection after the calls in flight.
    package func shutdown() { grpc.beginGracefulShutdown() }

    /// The metadata of every call.
    ///
    /// - Parameter lease: content written under a lease is kept as long as the lease.
    func metadata(lease: String? = nil) -> Metadata {
        var metadata: Metadata = ["containerd-namespace": .string(namespace)]
        if let lease { metadata.addString(lease, forKey: "containerd-lease") }
        return metadata
    }

    /// Options of a unary call.
    var unary: CallOptions {
        var options = streaming
        options.timeout = callTimeout
        return options
    }

    /// Options of the listing of all content, which takes seconds on a node with very much content: twenty times the timeout
    /// of a unary call. The limit detects a containerd that hangs.
    var listing: CallOptions {
        var options = streaming
        options.timeout = callTimeout * 20
        return options
    }

    /// Options of a call without a timeout.
    var streaming: CallOptions {
        var options = CallOptions.defaults
        options.maxResponseMessageBytes = Self.maximumMessageSize
        return options
    }
}

extension RPCError {
    /// Whether the object of the call does not exist.
    var isNotFound: Bool { code == .notFound }

    /// Whether it concerns the connection or the caller, and not the object of the call.
    var isConnectionError: Bool { code == .unavailable || code == .cancelled || code == .deadlineExceeded }
}

/// Turns "not found" into `nil`.
func nilIfNotFound<T: Sendable>(_ call: () async throws -> T) async throws -> T? {
    do { return try await call() } catch let error as RPCError where error.isNotFound { return nil }
}

extension ContainerdClient {
    /// Gets containerd's version.
    package func version() async throws -> ContainerdVersion {
        let client = Containerd_Services_Version_V1_Version.Client(wrapping: grpc)
        return ContainerdVersion(try await client.version(.init(), metadata: metadata(), options: unary).version)
    }

    /// Lists containerd's namespaces.
    package func namespaces() async throws -> [String] {
        let client = Containerd_Services_Namespaces_V1_Namespaces.Client(wrapping: grpc)
        return try await client.list(.init(), metadata: metadata(), options: unary).namespaces.map(\.name)
    }

    /// Gets the content path from containerd; `nil` when it reports none.
    package func contentRoot() async throws -> String? {
        let client = Containerd_Services_Introspection_V1_Introspection.Client(wrapping: grpc)
        let response = try await client.plugins(
            .with { $0.filters = [#"type=="io.containerd.content.v1",id=="content""#] },
            metadata: metadata(), options: unary)
        return response.plugins.first { !($0.exports["root"] ?? "").isEmpty }?.exports["root"]
    }

    /// Lists the plugins of CRI, each with the reason for which containerd did not load it; empty when CRI is disabled.
    package func criPlugins() async throws -> [(name: String, failure: String?)] {
        let client = Containerd_Services_Introspection_V1_Introspection.Client(wrapping: grpc)
        let response = try await client.plugins(
            .with { $0.filters = [#"type=="io.containerd.grpc.v1",id=="cri""#, #"type=="io.containerd.cri.v1""#] },
            metadata: metadata(), options: unary)
        return response.plugins.map { ("\($0.type).\($0.id)", $0.hasInitErr ? $0.initErr.message : nil) }
    }

    /// Gets the configuration of the CRI plugin, as JSON; `nil` when it has none or there is no CRI plugin.
    package func criConfiguration() async throws -> String? {
        let client = Runtime_V1_RuntimeService.Client(wrapping: grpc)
        do {
            return try await client.status(.with { $0.verbose = true }, metadata: metadata(), options: unary)
                .info["config"]
        } catch let error as RPCError where error.code == .unimplemented {
            return nil
        }
    }
}

/// A version of containerd, as in `1.6.20~ds1` or `v2.1.0-rc.1`.
package struct ContainerdVersion: Sendable, Hashable, CustomStringConvertible {
    /// The text that containerd reports.
    package let description: String
    /// Major and minor number; `nil` when the text does not begin with them, as in a development build.
    package let numbers: (major: Int, minor: Int)?

    /// Reads a version.
    package init(_ text: String) {
        description = text
        let parts = text.drop { $0 == "v" }.split(separator: ".", maxSplits: 2)
            .map { $0.prefix { $0.isASCII && $0.isNumber } }
        if parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1]) {
            numbers = (major, minor)
        } else {
            numbers = nil
        }
    }

    /// Whether this is older than a version; false for a version without numbers.
    package func isOlder(than major: Int, _ minor: Int) -> Bool {
        guard let numbers else { return false }
        return (numbers.major, numbers.minor) < (major, minor)
    }

    /// The oldest version that is supported is 1.6.
    package var isSupported: Bool { !isOlder(than: 1, 6) }

    /// Whether an event reports committed content, as since 2.1.
    package var reportsContentCreation: Bool { numbers != nil && !isOlder(than: 2, 1) }

    /// Whether two versions are the same text.
    package static func == (a: ContainerdVersion, b: ContainerdVersion) -> Bool { a.description == b.description }

    /// Hashes the text.
    package func hash(into hasher: inout Hasher) { hasher.combine(description) }
}

extension ContainerdClient {
    private var leases: Containerd_Services_Leases_V1_Leases.Client<Transport> { .init(wrapping: grpc) }

    /// Creates a lease, which protects what is written under it from garbage collection.
    ///
    /// - Parameters:
    ///   - id: the lease's name; must be unique.
    ///   - expiry: the time in RFC 3339 at which containerd deletes it, if no client did.
    package func createLease(_ id: String, expiry: String) async throws {
        let request = Containerd_Services_Leases_V1_CreateRequest.with {
            $0.id = id
            $0.labels = ["containerd.io/gc.expire": expiry]
        }
        _ = try await leases.create(request, metadata: metadata(), options: unary)
    }

    /// Deletes a lease, if it exists.
    package func deleteLease(_ id: String) async throws {
        _ = try await nilIfNotFound {
            try await leases.delete(.with { $0.id = id }, metadata: metadata(), options: unary)
        }
    }
}

extension ContentStoreError {
    /// The store's error for a failed call to containerd.
    init(containerd error: any Error) {
        if let error = error as? ContentStoreError {
            self = error
            return
        }
        guard let error = error as? RPCError else {
            self = .unavailable(String(describing: error))
            return
        }
        // Errors of the file system reach a client as text only. Bytes are compared, because Foundation's function for texts brings
        // 34 MiB of ICU's data into a program that is linked statically.
        func contains(_ text: String) -> Bool { error.message.utf8.firstRange(of: text.utf8) != nil }
        if contains("no space left on device") || contains("disk quota exceeded") {
            self = .noSpace("containerd: \(error.message)")
        } else if contains("read-only file system") {
            self = .readOnly("containerd: \(error.message)")
        } else if error.code == .permissionDenied || contains("permission denied") {
            self = .permissionDenied("containerd: \(error.message)")
        } else {
            self = .unavailable("containerd: \(error.code): \(error.message)")
        }
    }
}

/// Runs a call and converts its error.
func asStoreError<T>(_ call: () async throws -> T) async throws -> T {
    do { return try await call() } catch let error as CancellationError { throw error } catch {
        throw ContentStoreError(containerd: error)
    }
}
