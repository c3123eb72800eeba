import Foundation
import Testing

/// A cluster of ten processes on this machine.
@Suite(.serialized, .timeLimit(.minutes(10))) struct TenNodesTests {
    /// Ten nodes, started at the same time, that know the first three's addresses but not their IDs.
    private func startTen() async throws -> [ClusterNode] {
        let listen = (0..<10).map { _ in "/ip4/\(LoopbackAddress.next())/tcp/5001" }
        return try await withThrowingTaskGroup(of: (Int, ClusterNode).self) { group in
            for number in 0..<10 {
                group.addTask {
                    let node = try await ClusterNode.start(
                        listen: [listen[number]], bootstrap: Array(listen.prefix(3)), seed: UInt8(number))
                    return (number, node)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private func allReady(_ nodes: [ClusterNode]) async throws {
        var seconds: [Double] = []
        for node in nodes { seconds.append(try await node.ready().seconds ?? 0) }
        let slowest = seconds.max() ?? 0
        print("ready: \(nodes.count) nodes, the last \(Int(slowest * 1000)) ms after its start")
    }

    @Test func nothingOfTheLivingIsLost() async throws {
        var nodes = try await startTen()
        try await allReady(nodes)
        for (number, node) in nodes.enumerated() { _ = try await node.ask("advertise of-\(number) 10", "advertised") }
        func everybodyFinds(_ owners: [Int], from askers: [Int]) async throws {
            for asker in askers {
                for owner in owners where owner != asker {
                    _ = try await nodes[asker].findsAll("of-\(owner)", 10, at: nodes[owner])
                }
            }
        }
        let all = Array(0..<10)
        try await everybodyFinds(all, from: all)

        let victims = [1, 4, 7]
        let living = all.filter { !victims.contains($0) }
        for victim in victims { nodes[victim].process.send(SIGKILL) }
        for victim in victims { #expect(try await nodes[victim].process.wait() == .signalled(SIGKILL)) }
        // Not one lookup fails meanwhile: the first round counts.
        for asker in living {
            for owner in living where owner != asker {
                let found = try await nodes[asker].ask("findall of-\(owner) 10 \(nodes[owner].id)", "foundall")
                #expect(found.missing == 0, "of-\(owner) from \(asker)")
            }
        }
        // Two come back as who they were, one as somebody else; all without what they had been told.
        for victim in victims {
            let former = nodes[victim]
            nodes[victim] = try await ClusterNode.start(
                listen: former.addresses, bootstrap: nodes.prefix(3).flatMap(\.addresses),
                seed: victim == 4 ? 104 : UInt8(victim))
            #expect((nodes[victim].id == former.id) == (victim != 4))
        }
        try await allReady(victims.map { nodes[$0] })
        try await everybodyFinds(living, from: all)
        for victim in victims { _ = try await nodes[victim].ask("advertise of-\(victim) 10", "advertised") }
        try await everybodyFinds(all, from: all)
        for node in nodes {
            let others = Set(nodes.map(\.id)).subtracting([node.id])
            // As many is not enough: one that is dead may still be known, and one that is new not yet.
            _ = try await node.process.until("just all others being known", limit: .seconds(180)) { () -> Bool? in
                let known = Set(try await node.ask("peers", "peers").peers ?? [])
                return known == others ? true : nil
            }
        }
    }

    @Test func tenThousandKeysOfOneNode() async throws {
        let nodes = try await startTen()
        try await allReady(nodes)
        _ = try await nodes[9].ask("advertise key 10000", "advertised")
        for node in nodes.dropLast() {
            let found = try await node.findsAll("key", 10_000, at: nodes[9])
            let (median, p99) = (found.median ?? 0, found.p99 ?? 0)
            print(
                "10,000 lookups: median \(String(format: "%.3f", median)) ms, p99 \(String(format: "%.3f", p99)) ms")
            // So few nodes keep every record, each of them.
            _ = try await node.process.until("all records kept", limit: .seconds(180)) { () -> Bool? in
                try await node.ask("records", "records").kept == 10_000 ? true : nil
            }
        }
        // A node that comes later and has been told nothing finds all of it.
        let late = try await ClusterNode.start(
            listen: ["/ip4/\(LoopbackAddress.next())/tcp/5001"], bootstrap: nodes[0].addresses)
        _ = try await late.ready()
        _ = try await late.findsAll("key", 10_000, at: nodes[9])
    }

    /// A node that is stopped properly is named by nobody any more, at once.
    @Test func aGoodbyeIsHeard() async throws {
        var nodes = try await startTen()
        try await allReady(nodes)
        for node in nodes.prefix(2) { _ = try await node.ask("advertise shared 1", "advertised") }
        for node in nodes.dropFirst(2) { try await node.finds("shared-0", at: Array(nodes.prefix(2))) }
        let leaver = nodes.removeFirst()
        _ = try await leaver.ask("quit", "stopped")
        #expect(try await leaver.process.wait() == .exited(0))
        for node in nodes.dropFirst() { try await node.finds("shared-0", at: [nodes[0]]) }
    }
}
