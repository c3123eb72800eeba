import Logging
import NIOCore
import ServiceLifecycle
import Synchronization

/// A ``PeerRouter`` that is a full member of a Spegel cluster: a Kademlia node over libp2p, together with Go nodes.
///
/// Run it as a service, or with ``start()`` and ``shutdown()``. On shutdown it tells its peers, so that nobody is sent
/// to a node that has gone.
public final class KademliaRouter: PeerRouter, Service {
    /// Where a router is on its way into the cluster.
    public enum State: Hashable, Sendable, CustomStringConvertible {
        /// Not started yet.
        case idle
        /// Looking for somebody to join.
        case joining
        /// Bootstrapping named, several times, only this node: it is a cluster of one, and ready as such.
        case alone
        /// Peers are known, and the first search for neighbours is done.
        case joined
        /// Shut down.
        case stopped

        /// A word or two for logs.
        public var description: String {
            switch self {
            case .idle: "idle"
            case .joining: "joining"
            case .alone: "alone"
            case .joined: "joined"
            case .stopped: "stopped"
            }
        }
    }

    private struct Shared {
        var state = State.idle
        var identityServer: IdentityServer?
    }

    /// What the router was made with.
    public let configuration: KademliaRouterConfiguration
    /// The libp2p node below, for diagnosis.
    package let host: Host
    let driver: KademliaDriver
    /// Nil for a node that takes no part in cold starts.
    private let claims: ClaimService?
    private let bootstrapper: Bootstrapper?
    private let shared: SharedState
    private var logger: Logger { configuration.logger }

    /// The part that callbacks refer to.
    private final class SharedState: Sendable {
        let value = Mutex(Shared())
        let bootstrapper = Mutex<Bootstrapper?>(nil)
    }

    /// Makes a router; nothing is opened before ``start()`` or ``run()``.
    public init(configuration: KademliaRouterConfiguration) {
        self.configuration = configuration
        var hostConfiguration = HostConfiguration(
            identity: configuration.identity, listenAddresses: configuration.listenAddresses,
            eventLoopGroup: configuration.eventLoopGroup, logger: configuration.logger)
        hostConfiguration.announcedAddresses = configuration.announcedAddresses
        hostConfiguration.advertiseLoopback = configuration.advertiseLoopback
        hostConfiguration.agentVersion = configuration.agentVersion
        hostConfiguration.limits = configuration.hostLimits
        var policy = configuration.addressPolicy
        if configuration.advertiseLoopback { policy.allowsLoopback = true }
        hostConfiguration.addressPolicy = policy
        let host = Host(configuration: hostConfiguration)
        let shared = SharedState()
        let logger = configuration.logger
        let driver = KademliaDriver(
            host: host, protocolID: configuration.protocolID, configuration: configuration.kademlia,
            policy: policy, eventLoop: configuration.eventLoopGroup.next(), logger: logger,
            onChange: { count, hasLookedAround in
                let isJoined = count > 0 && hasLookedAround
                shared.value.withLock { value in
                    switch value.state {
                    case .joining where isJoined, .alone where isJoined: value.state = .joined
                    case .joined where count == 0: value.state = .joining
                    default: break
                    }
                }
            },
            onConnectivity: { isOnline in
                if !isOnline { logger.warning("no peer is left: bootstrapping again") }
                shared.bootstrapper.withLock { $0 }?.connectivityChanged(isOnline: isOnline)
            })
        let claims = configuration.claims.map { limits in
            ClaimService(host: host, limits: limits, policy: policy, logger: logger) { [driver] key, limit in
                (try? await driver.ask { $0.table.nearest(to: key.position, limit: limit) }) ?? []
            }
        }
        self.claims = claims
        self.host = host
        self.shared = shared
        self.driver = driver
        bootstrapper = configuration.bootstrap.map { source in
            Bootstrapper(
                source: source, driver: driver, clusterPort: configuration.clusterPort, logger: logger
            ) { isAlone in
                shared.value.withLock { value in
                    if isAlone, value.state == .joining { value.state = .alone }
                    if !isAlone, value.state == .alone { value.state = .joining }
                }
            }
        }
        shared.bootstrapper.withLock { $0 = bootstrapper }
        driver.register(serving: configuration.isMember)
        if configuration.isMember { claims?.register() }
    }

    /// Where the router is on its way into the cluster.
    public var state: State { shared.value.withLock { $0.state } }

    /// True once the cluster was joined and its neighbourhood searched, or found to consist of this node alone.
    ///
    /// A cluster of one is ready: what it holds it serves, and there is nobody to ask for the rest. A node that cannot
    /// find out whether there are others (the name does not resolve, nobody answers) is not.
    public var isReady: Bool {
        switch state {
        case .joined, .alone: true
        case .idle, .joining, .stopped: false
        }
    }

    /// This node's identity.
    public var peerID: PeerID { host.peerID }

    /// This node, with the IP addresses under which it announces itself.
    public var localPeer: Peer { Peer(KadContact(id: host.peerID, addresses: host.advertisedAddresses)) }

    /// Where the identity server listens; nil without one.
    public var identityServerAddress: SocketAddress? { shared.value.withLock { $0.identityServer }?.localAddress }

    // MARK: Life

    /// Listens and begins to join the cluster; returns once listening.
    ///
    /// - Throws: ``HostError/cannotListen(_:)``, ``PeerRouterError/unusableProtocolID(_:)``, or ``BootstrapError`` when
    ///   the identity server cannot start.
    public func start() async throws {
        let protocolID = configuration.protocolID
        guard protocolID.utf8.count <= 128, protocolID.utf8.first == UInt8(ascii: "/"),
            !protocolID.utf8.contains(UInt8(ascii: "\n"))
        else { throw PeerRouterError.unusableProtocolID(protocolID) }
        try await host.start()
        let addresses = host.advertisedAddresses
        _ = try await driver.ask { $0.addresses = addresses }
        if addresses.isEmpty, configuration.isMember {
            logger.warning("no address to announce: others will not find this node's content")
        }
        if let address = configuration.identityServerAddress {
            do {
                try await startIdentityServer(address)
            } catch {
                await host.shutdown()
                throw error
            }
        }
        shared.value.withLock { $0.state = .joining }
        logger.info(
            "router listening",
            metadata: [
                "peer": "\(host.peerID)",
                "addresses": "\(addresses.map(\.description).joined(separator: " "))",
            ])
        bootstrapper?.start()
    }

    private func startIdentityServer(_ address: String) async throws {
        guard let colon = address.lastIndex(of: ":"), let port = UInt16(address[address.index(after: colon)...]) else {
            throw BootstrapError("\(address) is not HOST:PORT")
        }
        let name = address[..<colon].trimmingPrefix("[")
        let host = self.host
        let server = try await IdentityServer.start(
            host: String(name.hasSuffix("]") ? name.dropLast() : name), port: Int(port),
            certificateDirectory: configuration.identityServerCertificateDirectory,
            eventLoopGroup: configuration.eventLoopGroup, logger: logger
        ) { (host.peerID, host.advertisedAddresses) }
        shared.value.withLock { $0.identityServer = server }
    }

    /// Says goodbye to the peers, ends searches and closes everything. Takes a second or so at most for the goodbyes.
    public func shutdown() async {
        let server = shared.value.withLock { value in
            value.state = .stopped
            defer { value.identityServer = nil }
            return value.identityServer
        }
        bootstrapper?.stop()
        await server?.stop()
        if configuration.isMember { await sayGoodbye() }
        await driver.stop()
        await host.shutdown()
    }

    private func sayGoodbye() async {
        let peers = ((try? await driver.ask { $0.leave() }) ?? []).map(\.id)
        let (host, protocolID) = (self.host, configuration.protocolID)
        await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                // Whoever has not taken it by then finds out by itself.
                try? await Task.sleep(for: .seconds(1))
                return false
            }
            for peer in peers {
                group.addTask {
                    if host.protocols(of: peer)?.contains(LeaveMessage.protocolID) ?? false {
                        try? await host.send([[]], to: peer, protocolID: LeaveMessage.protocolID)
                    } else {
                        await host.withdraw(protocolID, notifying: peer)
                    }
                    return true
                }
            }
            var left = peers.count
            while left > 0, let wasTold = await group.next(), wasTold { left -= 1 }
            group.cancelAll()
        }
        logger.debug("said goodbye", metadata: ["peers": "\(peers.count)"])
    }

    /// Runs until the service group shuts down gracefully or the task is cancelled.
    public func run() async throws {
        try await start()
        try? await gracefulShutdown()
        await shutdown()
    }

    // MARK: PeerRouter

    /// Announces that this node holds the content of `keys`; see ``PeerRouter/advertise(_:)``.
    public func advertise(_ keys: [String]) async throws {
        guard state != .stopped else { throw PeerRouterError.stopped }
        let content = keys.map { ContentKey($0) }
        try await driver.ask { try $0.advertise(content, now: .now()) }
    }

    /// Stops announcing `keys`.
    public func withdraw(_ keys: [String]) async {
        let content = keys.map { ContentKey($0) }
        try? await driver.ask { $0.withdraw(content) }
    }

    /// The nodes that hold the content of `key`; see ``PeerRouter/providers(for:limit:)``.
    public func providers(for key: String, limit: Int) -> AsyncStream<Peer> {
        driver.providers(for: key, limit: limit)
    }

    /// Demotes a peer that could not be fetched from, and checks whether it is still there.
    public func reportUnreachable(_ peer: PeerID) {
        driver.perform { $0.reportUnreachable(peer, now: .now()) }
    }

    /// Whether another node that takes part in cold starts is connected.
    public var canClaim: Bool { claims?.canClaim ?? false }

    /// Asks the arbiter of the content; see ``PeerRouter/claim(_:)``.
    public func claim(_ claim: ContentClaim) async -> ClaimAnswer { await claims?.claim(claim) ?? .unknown }

    /// Tells the arbiter that answered the claim; see ``PeerRouter/report(_:of:)``.
    public func report(_ progress: ClaimProgress, of key: String) async -> Bool {
        await claims?.report(progress, of: key) ?? false
    }

    /// The peers in the routing table, nearest first.
    public func knownPeers() async -> [Peer] {
        let contacts = try? await driver.ask { node in
            node.table.nearest(to: node.key, limit: node.table.count)
        }
        return (contacts ?? []).map { Peer($0, observed: host.observedAddresses(of: $0.id)) }
    }

    /// The peers in the routing table, nearest first, with the state of their connections.
    public func knownPeerDetails() async -> [KnownPeer] {
        await knownPeers().map { peer in
            KnownPeer(
                peer: peer, isConnected: host.isConnected(to: peer.id), agentVersion: host.agentVersion(of: peer.id),
                roundTripTime: host.roundTripTime(of: peer.id))
        }
    }

    /// Numbers for operators.
    public func statistics() async -> RouterStatistics {
        let (peers, records) = (await knownPeers(), await recordCounts())
        var statistics = RouterStatistics()
        statistics.knownPeers = peers.count
        statistics.connectedPeers = peers.count { host.isConnected(to: $0.id) }
        statistics.ownRecords = records.own
        statistics.keptRecords = records.kept
        return statistics
    }

    // MARK: For operators

    /// The CID that stands for `key` in the network, as other tools show it.
    public static func contentIdentifier(of key: String) -> String { ContentKey(key).cid }

    /// How many keys are kept announced, and how many records of others are kept.
    public func recordCounts() async -> (own: Int, kept: Int) {
        (try? await driver.ask { ($0.schedule.count, $0.store.count) }) ?? (0, 0)
    }
}
