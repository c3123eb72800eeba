#if Containerd
    import GRPCCore
    import GRPCNIOTransportHTTP2Posix
    import NIOCore
    import NIOPosix

    /// One connection's worth of calls to containerd, in one namespace.
    ///
    /// It connects with the first call and never reconnects for long: when the connection ends, so do its calls, and the
    /// owner makes another client. That way everything that depended on the lost connection is told at once.
    package final class ContainerdClient: Sendable {
        /// The transport that all calls use.
        typealias Transport = HTTP2ClientTransport.Posix

        /// A list of images is one message; thousands of them fit in this many bytes.
        static let maximumMessageSize = 64 << 20

        let grpc: GRPCClient<Transport>
        let namespace: String
        let callTimeout: Duration

        /// Creates a client; ``run()`` must run for its calls to be made.
        ///
        /// - Parameters:
        ///   - socketPath: containerd's Unix domain socket.
        ///   - namespace: the namespace of images, content and leases.
        ///   - callTimeout: how long a call that answers at once may take.
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

        /// Options of a call that answers at once.
        var unary: CallOptions {
            var options = streaming
            options.timeout = callTimeout
            return options
        }

        /// Options of the listing of all content, which takes seconds on a node with very much of it: twenty times as long as
        /// a call that answers at once. Without a limit a containerd that hangs would never be given up.
        var listing: CallOptions {
            var options = streaming
            options.timeout = callTimeout * 20
            return options
        }

        /// Options of a call that may last.
        var streaming: CallOptions {
            var options = CallOptions.defaults
            options.maxResponseMessageBytes = Self.maximumMessageSize
            return options
        }
    }

    extension RPCError {
        /// Whether the named thing does not exist.
        var isNotFound: Bool { code == .notFound }

        /// Whether it says something of the connection, or of whoever called, rather than of what was asked for.
        var isOfConnection: Bool { code == .unavailable || code == .cancelled || code == .deadlineExceeded }
    }

    /// Turns "not found" into `nil`.
    func found<T: Sendable>(_ call: () async throws -> T) async throws -> T? {
        do { return try await call() } catch let error as RPCError where error.isNotFound { return nil }
    }
#endif
