import Foundation
import TestSupport
import Testing

/// The demonstration, as `make demo ARGS=--exit` runs it.
@Suite struct DemoTests {
    /// Three nodes, a pull through the third, and another one while the node that serves is killed.
    @Test func pullsVerifiesAndEnds() async throws {
        let layout = try await TestImages.medium()
        let directory = try TemporaryDirectory()
        let address = LoopbackAddress.next(3)
        let port = try LoopbackAddress.freePort(on: address)
        let work = directory.path("work")
        let result = try await Command.run(
            try Project.program("demo"), "--image", layout.path, "--work-dir", work, "--registry-addr",
            "\(address):\(port)", "--exit", limit: .seconds(600))
        #expect(result.status == .exited(0), "\(result)")
        #expect(result.output.contains("What happened"))
        #expect(result.output.contains("digest, diffID"))
        #expect(result.output.contains("-9 of node"))
        for name in ["pulled", "node2", "pulled-again"] {
            let pulled = TestLayout(path: "\(work)/\(name)")
            for digest in try layout.digests(of: TestImages.demo) {
                let expected = try layout.blob(digest)
                #expect(try pulled.blob(digest) == expected)
            }
        }
        // The nodes it started are gone.
        for offset in 0..<3 {
            #expect(throws: POSIXFailure.self) { try RawConnection(LoopbackAddress.after(address, offset), port) }
        }
    }

    /// Without `--exit` it serves until a signal, and takes the daemon down with it.
    @Test func servesUntilASignal() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let address = LoopbackAddress.next(3)
        let port = try LoopbackAddress.freePort(on: address)
        let demo = try await ChildProcess.start([
            try Project.program("demo"), "--image", layout.path, "--work-dir", directory.path("work"),
            "--registry-addr", "\(address):\(port)",
        ])
        _ = try await demo.until("the demo serving") { () -> Bool? in
            demo.output.contains("Serving until Ctrl-C") ? true : nil
        }
        let third = LoopbackAddress.after(address, 2)
        #expect(try await RawConnection(third, port).request("GET", "/v2/").status == 200)
        demo.send(SIGINT)
        #expect(try await demo.wait() == .exited(0))
        #expect(throws: POSIXFailure.self) { try RawConnection(third, port) }
    }

    @Test func leavesOtherDirectoriesAlone() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let file = try directory.write("mine", to: "work/file")
        let result = try await Command.run(
            try Project.program("demo"), "--image", layout.path, "--work-dir", directory.path("work"), "--exit")
        #expect(result.status == .exited(64))
        #expect(FileManager.default.fileExists(atPath: file))
    }
}
