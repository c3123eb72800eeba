import Foundation
import Testing

/// The example of `docs/embedding.md` does what the page says.
@Suite struct EmbeddingExampleTests {
    @Test func servesItsArtifact() async throws {
        let address = LoopbackAddress.next()
        let port = try LoopbackAddress.freePort(on: address)
        let example = try await ChildProcess.start([try Project.program("EmbeddingExample"), "\(address):\(port)"])
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
}
