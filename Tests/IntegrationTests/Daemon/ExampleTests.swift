import Foundation
import TestSupport
import Testing

/// The examples of `docs/embedding.md` do what the page says.
@Suite struct ExampleTests {
    @Test func registryServesItsArtifact() async throws {
        let address = LoopbackAddress.next()
        let port = try LoopbackAddress.freePort(on: address)
        let example = try await ChildProcess.start([try Project.program("RegistryOnly"), "\(address):\(port)"])
        _ = try await example.until("the example listening") { () -> Bool? in
            (try? RawConnection(address, port)) == nil ? nil : true
        }
        let manifest = try await RawConnection(address, port).request("GET", "/v2/tables/pi/manifests/v1")
        #expect(manifest.status == 200)
        let object = try JSONSerialization.jsonObject(with: Data(manifest.body)) as? [String: Any]
        let layer = try #require((object?["layers"] as? [[String: Any]])?.first?["digest"] as? String)
        let blob = try await RawConnection(address, port).request("GET", "/v2/tables/pi/blobs/\(layer)")
        #expect(blob.text == "name,value\npi,3.14\n")
        let output = try await Command.check(
            "skopeo", "inspect", "--raw", "--tls-verify=false",
            "docker://\(address):\(port)/registry.example/tables/pi:v1")
        #expect(Array(output.utf8) == manifest.body)
        example.send(SIGTERM)
        #expect(try await example.wait() == .exited(0))
    }

    /// A second node, which has nothing, serves what the first one has.
    @Test func nodeFetchesFromItsPeer() async throws {
        struct Status: Decodable {
            struct Peer: Decodable {
                var id: String
                var addresses: [String]
            }
            struct Mirror: Decodable { var hits: Int }
            var isReady: Bool
            var localPeer: Peer?
            var peers: [Peer]
            var advertisedKeys: [String]
            var mirror: Mirror?
        }
        func status(_ address: String) async throws -> Status {
            let response = try await RawConnection(address, 9090).request("GET", "/debug/status")
            return try JSONDecoder().decode(Status.self, from: Data(response.body))
        }
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let addresses = [LoopbackAddress.next(), LoopbackAddress.next()]
        let program = try Project.program("PeerToPeerNode")
        let first = try await ChildProcess.start([program, layout.path, addresses[0]])
        let digest = try layout.digest(of: TestImages.demo)
        let peer = try await first.until("the first node advertising") { () -> String? in
            guard let status = try? await status(addresses[0]), status.advertisedKeys.contains(digest) else {
                return nil
            }
            return status.localPeer?.id
        }
        let second = try await ChildProcess.start(
            [program, directory.path("empty"), addresses[1], "/ip4/\(addresses[0])/tcp/5001/p2p/\(peer)"])
        let path = "/v2/library/demo/manifests/\(digest)?ns=docker.io"
        let manifest = try await second.until("the second node serving") { () -> RawConnection.Response? in
            guard let connection = try? RawConnection(addresses[1], 5000) else { return nil }
            let response = try await connection.request("GET", path)
            return response.status == 200 ? response : nil
        }
        #expect(Data(manifest.body) == (try layout.blob(digest)))
        let joined = try await second.until("the second node being ready") { () -> Status? in
            let status = try await status(addresses[1])
            return status.isReady ? status : nil
        }
        #expect(joined.peers.map(\.id) == [peer])
        #expect(joined.mirror?.hits == 1)
        for node in [second, first] {
            node.send(SIGTERM)
            #expect(try await node.wait() == .exited(0))
        }
    }
}
