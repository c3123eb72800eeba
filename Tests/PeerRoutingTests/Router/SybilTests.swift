import Logging
import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import Libp2p
@testable import PeerRouting

/// Machines with many identities each, which answer searches with each other and keep no record.
private struct HostileMachine {
    let hosts: [Libp2p.Host]

    /// - Parameter address: The machine's, from which it also dials.
    init(address: String, identities: Int) throws {
        let logger = Logger(label: "hostile") { _ in SwiftLogNoOpLogHandler() }
        hosts = try (0..<identities).map { _ in
            var configuration = HostConfiguration(
                identity: NodeIdentity(), listenAddresses: [try Multiaddr(parsing: "/ip4/\(address)/tcp/0")],
                logger: logger)
            configuration.advertiseLoopback = true
            configuration.limits = .generous
            return Host(configuration: configuration)
        }
    }

    /// Every identity connects to every node, and answers what it is asked with the other identities.
    func attack(_ nodes: [KademliaRouter]) async throws {
        serve()
        for host in hosts { try await host.start() }
        for host in hosts {
            for node in nodes { _ = try? await host.connect(to: node.peerID, addresses: node.host.listenAddresses) }
        }
    }

    func stop() async { for host in hosts { await host.shutdown() } }

    private func serve() {
        let hosts = hosts
        for host in hosts {
            host.registerMessageHandler(KadMessage.protocolID) { message, reply in
                guard let request = try? KadMessage(decoding: message.payload) else { return reply.ignore() }
                switch request.kind {
                case .findNode, .getProviders:
                    let others = hosts.filter { $0.peerID != host.peerID }.shuffled().prefix(20).map {
                        KadContact(id: $0.peerID, addresses: $0.listenAddresses)
                    }
                    reply.respond(
                        KadMessage(kind: request.kind, key: request.key, closerPeers: Array(others)).encoded())
                default:
                    reply.ignore()
                }
            }
        }
    }
}

/// What honest nodes hold is found among them, whoever else has joined.
@Suite(.serialized, .timeLimit(.minutes(10))) struct SybilTests {
    /// Thirty-six identities; `SPEGEL_TEST_FULL=1` makes them as many as were seen to starve a cluster.
    @Test func honestContentIsFoundAmongHostileMachines() async throws {
        let isFull = Project.isFullScale
        let machines = try (1...3).map { number in
            try HostileMachine(address: "127.66.\(number).1", identities: isFull ? 50 : 12)
        }
        let honest = try await Self.cluster(of: 10)
        func stop() async {
            for machine in machines { await machine.stop() }
            for node in honest { await node.shutdown() }
        }
        do {
            for machine in machines { try await machine.attack(honest) }
            // New content, announced when the hostile identities are in.
            for (number, node) in honest.enumerated() {
                try await node.advertise((0..<6).map { "content \(number) \($0)" })
            }
            for node in honest {
                try await eventually("everything is announced", limit: .seconds(240)) {
                    try await node.driver.ask { node in
                        node.announcements.isEmpty && node.outboxes.isEmpty
                            && node.schedule.provided.count { _ in true } == 6
                    }
                }
            }
            var missing: [String] = []
            for number in honest.indices {
                for item in 0..<6 {
                    let asker = honest[(number + 1 + item) % honest.count]
                    let found = await asker.found("content \(number) \(item)", limit: 1)
                    if found != [honest[number].peerID] { missing.append("content \(number) \(item)") }
                }
            }
            #expect(missing == [])
        } catch {
            await stop()
            throw error
        }
        await stop()
    }

    /// Nodes that each have an address of their own, as machines do.
    private static func cluster(of count: Int) async throws -> [KademliaRouter] {
        var nodes: [KademliaRouter] = []
        do {
            for number in 0..<count {
                let node = try makeRouter(
                    address: "/ip4/127.65.\(number + 1).1/tcp/0", joining: nodes.first?.fullAddresses ?? []
                ) {
                    $0.hostLimits.countsLoopback = true
                    $0.kademlia.query.countsLoopback = true
                }
                nodes.append(node)
                try await node.start()
                if number > 0 { try await node.joined() }
            }
        } catch {
            for node in nodes { await node.shutdown() }
            throw error
        }
        return nodes
    }
}
