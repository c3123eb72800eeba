import ArgumentParser
import ContentStoreConformance
import Foundation
import Libp2p
import Logging
import MirrorServer
import PeerRouting
import PeerRoutingCore
import TestSupport

/// A hostile machine, as a process of its own in the namespace of a node. It says `attacking` when it does, and ends with its
/// standard input.
struct HostilePeerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "hostile-peer", shouldDisplay: false)

    @Option var attack: Attack
    @Option var address: String
    @Option var identities: Int
    /// The keys that the honest nodes are going to announce, one a line.
    @Option var keys: String
    /// The layouts of the honest nodes.
    @Option var content: String
    /// The addresses of the honest nodes.
    @Argument var targets: [String] = []

    private var routerAddresses: [String] { targets.map { "/ip4/\($0)/tcp/5001" } }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        OpenFileLimit.raise()
        let keys = try String(contentsOfFile: keys, encoding: .utf8).split(separator: "\n").map(String.init)
        let own = HostileContent(attack, layouts: content)
        if !own.isEmpty { try own.serve(host: address, port: 5000) }
        var held: [Any] = []
        switch attack {
        case .none: break
        case .absent, .liar, .oversize, .trickle:
            held = try await announce(keys)
        case .tags:
            held = try await announce(keys.filter { !$0.hasPrefix("sha256:") } + own.ownKeys)
        case .identities, .impostor, .connections, .burst:
            held = try await HostileHosts.attack(self, own: address, routers: routerAddresses)
        case .silent:
            for target in targets { SilentConnection.keep(300, to: target, port: 5001) }
        case .idleHTTP:
            if let first = targets.first { SilentConnection.keep(17_500, to: first, port: 5000) }
        }
        print("attacking")
        fflush(nil)
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            Thread.detachNewThread {
                while readLine() != nil {}
                continuation.resume()
            }
        }
        withExtendedLifetime(held) {}
    }

    /// Members of the DHT like any other, as many as identities, which announce the keys.
    private func announce(_ keys: [String]) async throws -> [KademliaRouter] {
        var routers: [KademliaRouter] = []
        for _ in 0..<identities {
            let router = try Self.router(at: "/ip4/\(address)/tcp/0", joining: routerAddresses)
            try await router.start()
            routers.append(router)
        }
        for router in routers {
            try await eventually("joining the cluster") { router.isReady }
            try await router.advertise(keys)
        }
        return routers
    }

    static func router(at listen: String, joining routers: [String]) throws -> KademliaRouter {
        let configuration = KademliaRouterConfiguration(
            identity: NodeIdentity(), listenAddresses: [try Multiaddr(parsing: listen)],
            bootstrap: NamedNodes(nodes: try routers.map { BootstrapCandidate(try Multiaddr(parsing: $0)) }),
            logger: Logger(label: "hostile") { _ in SwiftLogNoOpLogHandler() })
        return KademliaRouter(configuration: configuration)
    }
}

private struct NamedNodes: BootstrapSource {
    var nodes: [BootstrapCandidate]

    func candidates() -> [BootstrapCandidate] { nodes }
}

/// Identities that speak the DHT's protocol without being members of it.
private enum HostileHosts {
    /// Connects every identity to every node and does what the attack is about, until the process ends.
    ///
    /// - Returns: what has to be held.
    static func attack(_ command: HostilePeerCommand, own address: String, routers: [String]) async throws -> [Any] {
        let scout = try HostilePeerCommand.router(at: "/ip4/\(address)/tcp/0", joining: routers)
        try await scout.start()
        try await eventually("joining the cluster") { scout.isReady }
        let victims = Victims(scout, among: Set(command.targets))
        try await victims.refresh()
        let hosts = try (0..<command.identities).map { _ in
            Libp2p.Host(
                configuration: HostConfiguration(
                    identity: NodeIdentity(), listenAddresses: [try Multiaddr(parsing: "/ip4/\(address)/tcp/0")],
                    logger: Logger(label: "hostile") { _ in SwiftLogNoOpLogHandler() }))
        }
        for host in hosts {
            host.registerMessageHandler(KadMessage.protocolID) { message, reply in
                answer(message.payload, as: host, of: hosts, victims, command.attack, address, reply)
            }
            try await host.start()
        }
        let attack = command.attack
        for host in hosts {
            Task {
                while true {
                    for victim in victims.all {
                        // What is refused or closed is tried again.
                        _ = try? await host.connect(to: victim.id, addresses: victim.addresses)
                        switch attack {
                        case .connections:
                            let message = KadMessage(kind: .findNode, key: victim.id.bytes).encoded()
                            _ = try? await host.request(message, to: victim.id, protocolID: KadMessage.protocolID)
                        case .burst:
                            try? await host.send(
                                records(of: host), to: victim.id, protocolID: KadMessage.protocolID)
                        default: break
                        }
                    }
                    try await Task.sleep(for: attack == .burst ? .milliseconds(20) : .milliseconds(500))
                }
            }
        }
        // Nodes that come later are attacked, too.
        Task {
            while true {
                try await Task.sleep(for: .milliseconds(500))
                try await victims.refresh()
            }
        }
        try await Task.sleep(for: .seconds(1))
        return [scout, hosts]
    }

    /// 370 kB of announcements, as fast as the node takes them.
    private static func records(of host: Libp2p.Host) -> [[UInt8]] {
        let contact = KadContact(id: host.peerID, addresses: host.listenAddresses)
        return (0..<3000).map { _ in
            let digest = (0..<32).map { _ in UInt8.random(in: 0...255) }
            return KadMessage(kind: .addProvider, key: [0x12, 0x20] + digest, providerPeers: [contact]).encoded()
        }
    }

    private static func answer(
        _ payload: [UInt8], as host: Libp2p.Host, of hosts: [Libp2p.Host], _ victims: Victims, _ attack: Attack,
        _ address: String,
        _ reply: MessageReply
    ) {
        guard let request = try? KadMessage(decoding: payload) else { return reply.ignore() }
        guard request.kind == .findNode || request.kind == .getProviders else { return reply.ignore() }
        var answer = KadMessage(kind: request.kind, key: request.key)
        answer.closerPeers = hosts.filter { $0.peerID != host.peerID }.shuffled().prefix(20).map {
            KadContact(id: $0.peerID, addresses: $0.listenAddresses)
        }
        if attack == .impostor, request.kind == .getProviders,
            let here = try? Multiaddr(parsing: "/ip4/\(address)/tcp/5001")
        {
            answer.providerPeers = victims.all.map { KadContact(id: $0.id, addresses: [here]) }
        }
        reply.respond(answer.encoded())
    }

    /// The honest nodes, as far as a member of the DHT knows them.
    private final class Victims: @unchecked Sendable {
        // Unchecked: the list is behind the lock.
        private let scout: KademliaRouter
        private let honest: Set<String>
        private let lock = NSLock()
        private var list: [(id: PeerID, addresses: [Multiaddr])] = []

        init(_ scout: KademliaRouter, among honest: Set<String>) {
            self.scout = scout
            self.honest = honest
        }

        var all: [(id: PeerID, addresses: [Multiaddr])] { lock.withLock { list } }

        func refresh() async throws {
            let found = try await scout.knownPeers().compactMap { peer -> (id: PeerID, addresses: [Multiaddr])? in
                guard let address = peer.addresses.map(\.description).first(where: honest.contains) else { return nil }
                return (peer.id, [try Multiaddr(parsing: "/ip4/\(address)/tcp/5001")])
            }
            lock.withLock { list = found }
        }
    }
}

/// TCP connections on which nothing is said.
private enum SilentConnection {
    /// Keeps so many open; those that the other side closes are made anew.
    static func keep(_ count: Int, to host: String, port: Int) {
        // Few threads, many connections.
        for _ in 0..<10 {
            Thread.detachNewThread {
                var open: [ClientSocket] = []
                while true {
                    while open.count < count / 10, let socket = try? ClientSocket(host: host, port: port) {
                        open.append(socket)
                    }
                    // Holding connections is the attack, not making them.
                    sleep(2)
                    open.removeAll { $0.hasEnded }
                }
            }
        }
    }
}
