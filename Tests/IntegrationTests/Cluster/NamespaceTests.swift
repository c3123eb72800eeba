import Testing

/// Clusters whose nodes have network stacks and addresses of their own, as on different machines.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NamespaceTests {
    enum Family: CaseIterable, Sendable {
        case v4, v6, both

        var listen: [String] {
            switch self {
            case .v4: ["/ip4/0.0.0.0/tcp/5001"]
            case .v6: ["/ip6/::/tcp/5001"]
            case .both: ["/ip4/0.0.0.0/tcp/5001", "/ip6/::/tcp/5001"]
            }
        }

        /// The addresses of the node with a number, without prefix lengths.
        func addresses(_ number: Int) -> [String] {
            switch self {
            case .v4: ["10.77.0.\(number + 1)"]
            case .v6: ["fd77::\(number + 1)"]
            case .both: ["10.77.0.\(number + 1)", "fd77::\(number + 1)"]
            }
        }

        func multiaddresses(_ number: Int) -> [String] {
            addresses(number).map { $0.contains(":") ? "/ip6/\($0)/tcp/5001" : "/ip4/\($0)/tcp/5001" }
        }
    }

    @Test(arguments: [
        [Family.v4, .v4, .v4], [.v6, .v6, .v6], [.both, .both, .both],
        // The last two cannot reach each other, and are not told of each other; the others find both.
        [.both, .both, .v4, .v6],
    ])
    func contentIsFoundAcross(_ families: [Family]) async throws {
        let network = try await NetworkNamespaces(
            addresses: families.enumerated().map { number, family in
                family.addresses(number).map { $0 + ($0.contains(":") ? "/64" : "/24") }
            })
        do {
            var nodes: [ClusterNode] = []
            for (number, family) in families.enumerated() {
                nodes.append(
                    try await ClusterNode.start(
                        listen: family.listen, bootstrap: families[0].multiaddresses(0) + families[1].multiaddresses(1),
                        wrapper: network.wrapper(number)))
                // Told to others are the interfaces' addresses, all of them, and neither loopback nor link-local ones.
                #expect(Set(nodes[number].addresses) == Set(family.multiaddresses(number)))
            }
            for node in nodes { _ = try await node.ready() }
            for (number, node) in nodes.enumerated() {
                _ = try await node.ask("advertise of-\(number) 1", "advertised")
            }
            for asker in nodes {
                for (number, owner) in nodes.enumerated()
                where owner !== asker && asker.isReachable(from: owner) {
                    try await asker.finds("of-\(number)-0", at: [owner])
                }
            }
            for node in nodes {
                _ = try await node.ask("quit", "stopped")
                #expect(try await node.process.wait() == .exited(0))
            }
        } catch {
            try await network.remove()
            throw error
        }
        try await network.remove()
    }
}

extension ClusterNode {
    /// Whether both have addresses of one family.
    fileprivate func isReachable(from other: ClusterNode) -> Bool {
        func families(_ node: ClusterNode) -> Set<Substring> { Set(node.addresses.map { $0.dropFirst().prefix(3) }) }
        return !families(self).isDisjoint(with: families(other))
    }
}
