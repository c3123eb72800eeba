import Foundation
import TestSupport
import Testing

/// `spegel dht` against running daemons.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DHTCommandTests {
    /// With a time for answers that a busy machine keeps to as well.
    private func dht(_ arguments: String...) async throws -> Command.Result {
        let patience = arguments.isEmpty ? [] : ["--dht-timeout", "60s"]
        return try await Command.run([try Project.program(), "dht"] + arguments + patience)
    }

    private func json(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    /// A daemon on an address of its own whose ports are fixed, and not those that other tests' daemons take by default
    /// on all addresses.
    private func daemon(
        _ address: String, store: String, data: String, joining others: [String]
    ) async throws -> ChildProcess {
        let process = try await ChildProcess.start(
            [
                try Project.program(), "registry", "--store", store, "--registry-addr", "\(address):15000",
                "--metrics-addr", "\(address):19090", "--router-addr", "\(address):5001", "--data-dir", data,
                "--bootstrap-kind", "http", "--http-bootstrap-addr", "\(address):18080", "--http-bootstrap-url",
                "http://\(others.first ?? address):18080/id",
            ])
        _ = try await process.until("the daemon ready") { () -> Bool? in
            // The metrics may be served later than the rest.
            guard let connection = try? RawConnection(address, 15000), (try? RawConnection(address, 19090)) != nil
            else { return nil }
            return try await connection.request("GET", "/readyz").status == 200 ? true : nil
        }
        return process
    }

    @Test func tellsWhatTheClusterKnows() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let addresses = [LoopbackAddress.next(), LoopbackAddress.next()]
        let first = try await daemon(addresses[0], store: layout.path, data: directory.path("0"), joining: [])
        let second = try await daemon(
            addresses[1], store: layout.path, data: directory.path("1"), joining: [addresses[0]])

        // The same from the file and from the daemon.
        let id = try await dht("id", "--data-dir", directory.path("0"))
        #expect(id.status == .exited(0) && id.output.hasPrefix("12D3Koo"))
        let asked = try await dht("id", "--metrics-addr", "\(addresses[0]):19090")
        #expect(asked.output == id.output)
        let ids = [id.output, try await dht("id", "--data-dir", directory.path("1")).output].map {
            $0.trimmingCharacters(in: .whitespacesAndNewlines)
        }

        let node = "\(addresses[1]):5001"
        let listed = try await eventually("both nodes listed with their answers") { () -> String? in
            let result = try await dht("peers", "--dht-nodes", node, "--format", "json")
            guard result.status == .exited(0) else { return nil }
            let peers = try #require(try json(result.output)["peers"] as? [[String: Any]], "\(result)")
            let haveAnswered = peers.allSatisfy { $0["answered"] as? Bool == true && $0["version"] as? String != nil }
            return peers.count == 2 && haveAnswered ? result.output : nil
        }
        let peers = try #require(try json(listed)["peers"] as? [[String: Any]])
        #expect(peers.compactMap { $0["id"] as? String } == ids.sorted())
        let table = try await dht("peers", "--dht-nodes", node)
        #expect(table.output.split(separator: "\n").count == 3)

        let key = try layout.digest(of: TestImages.demo).description
        let found = try await eventually("both providers found") { () -> String? in
            let result = try await dht("find", key, "--dht-nodes", node, "--format", "json")
            guard result.status == .exited(0) else { return nil }
            return (try json(result.output)["providers"] as? [Any])?.count == 2 ? result.output : nil
        }
        let providers = try #require(try json(found)["providers"] as? [[String: Any]])
        #expect(Set(providers.compactMap { $0["id"] as? String }) == Set(ids))
        #expect(Set(providers.compactMap { ($0["addresses"] as? [String])?.first }) == Set(addresses))

        let pong = try await dht("ping", node, "--format", "json")
        #expect(pong.status == .exited(0), "\(pong)")
        #expect(try json(pong.output)["id"] as? String == ids[1])
        let text = try await dht("ping", "/ip4/\(addresses[1])/tcp/5001/p2p/\(ids[1])")
        #expect(text.output.hasPrefix(ids[1]) && text.output.contains("/spegel/kad/1.0.0"))

        // The askers left no trace.
        let still = try json(try await dht("peers", "--dht-nodes", node, "--format", "json").output)
        #expect((still["peers"] as? [Any])?.count == 2)
        for process in [first, second] {
            process.send(SIGTERM)
            #expect(try await process.wait() == .exited(0))
        }
    }

    @Test func saysWhatIsWrong() async throws {
        let directory = try TemporaryDirectory()
        let nowhere = "\(LoopbackAddress.next()):5001"
        let stranger = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
        let node = try await ClusterNode.start(listen: ["/ip4/\(LoopbackAddress.next())/tcp/5001"], bootstrap: [])
        let digest = "sha256:\(String(repeating: "0", count: 64))"
        let cases: [(arguments: [String], mentioned: [String])] = [
            (["id", "--data-dir", directory.path], [directory.path, "no identity"]),
            (["id", "--metrics-addr", nowhere], [nowhere, "--metrics-addr", "--data-dir"]),
            (
                ["peers", "--dht-nodes", nowhere, "--dht-timeout", "5s"],
                ["no node of the cluster answered", "refused"]
            ),
            (["ping", nowhere], ["refused"]),
            (["ping", "\(node.addresses[0])/p2p/\(stranger)"], [stranger, node.id]),
            (
                ["find", digest, "--dht-nodes", node.addresses[0], "--dht-timeout", "60s"],
                ["no node announces \(digest)"]
            ),
        ]
        for (arguments, mentioned) in cases {
            let result = try await Command.run([try Project.program(), "dht"] + arguments)
            #expect(result.status == .exited(1), "\(arguments): \(result)")
            #expect(result.errors.hasPrefix("spegel: "), "\(arguments): \(result)")
            for part in mentioned { #expect(result.errors.contains(part), "\(part) in \(result)") }
            #expect(result.output == "")
        }
        let usage = try await dht()
        #expect(usage.status == .exited(64) && usage.errors.contains("find"))
        _ = try await node.ask("quit", "stopped")
    }
}
