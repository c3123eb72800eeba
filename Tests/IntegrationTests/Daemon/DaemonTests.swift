import Foundation
import TestSupport
import Testing

/// The daemon's life: how it starts, what it says, how it ends.
@Suite struct DaemonTests {
    @Test func everyLogLineIsJSON() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        let uris = [
            "/v2/", "/livez", "/readyz", "/v2/library/demo/manifests/1.0?ns=docker.io", "/v2/..%2f/manifests/x",
            "/v2/a\"b/manifests/%00", "/nothing",
        ]
        for uri in uris { _ = try await daemon.request("GET", uri) }
        for bytes in ["\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /v2/ HTTP/1.1\r\nBad Header\r\n\r\n"] {
            let connection = try daemon.connect()
            try await connection.send(Array(bytes.utf8))
            #expect(try await connection.response().status >= 400)
        }
        #expect(try await daemon.request("GET", "/livez").status == 200)
        _ = try await daemon.process.until("requests in the log") { () -> Bool? in
            daemon.log.filter { $0.level == "DEBUG" && $0["path"] != nil }.count >= uris.count ? true : nil
        }
        for line in daemon.log {
            for field in ["time", "level", "source", "msg"] {
                #expect(line[field] != nil, "\(field) in \(line.fields)")
            }
        }
        let request = try #require(daemon.log.first { ($0["path"] as? String)?.hasPrefix("/v2/library/demo") == true })
        for field in ["path", "status", "method", "latency", "ip", "handler"] {
            #expect(request[field] != nil, "\(field) in \(request.fields)")
        }
    }

    /// A transfer that runs when the signal comes is finished, new connections are refused, and the status is 0.
    @Test(arguments: [SIGTERM, SIGINT]) func stopsGracefully(signal: Int32) async throws {
        let layout = try await TestImages.medium()
        let daemon = try await TestDaemon.start(store: layout.path)
        let layer = try layout.largestLayer(of: TestImages.demo)
        // A small buffer, so that most of the blob is still on the other side when the signal comes.
        let connection = try daemon.connect(receiveBuffer: 64 * 1024)
        try await connection.send(
            Array("GET /v2/library/demo/blobs/\(layer.digest)?ns=docker.io HTTP/1.1\r\nHost: test\r\n\r\n".utf8))
        let head = try await connection.responseHead()
        #expect(head.status == 200)
        daemon.process.send(signal)
        _ = try await eventually("the port being closed") { () -> Bool? in
            (try? daemon.connect()) == nil ? true : nil
        }
        #expect(daemon.process.isRunning)
        let body = try await connection.read(count: layer.size)
        let expected = try layout.blob(layer.digest)
        #expect(Data(body) == expected)
        #expect(try await daemon.process.wait() == .exited(0))
        #expect(daemon.log.last?.message == "stopped", "\(daemon.process.log)")
    }

    /// A client that reads no more does not keep the daemon from ending.
    @Test func theGracePeriodEnds() async throws {
        let layout = try await TestImages.medium()
        let daemon = try await TestDaemon.start(store: layout.path, environment: ["SHUTDOWN_GRACE_PERIOD": "200ms"])
        let layer = try layout.largestLayer(of: TestImages.demo)
        let connection = try daemon.connect(receiveBuffer: 64 * 1024)
        try await connection.send(
            Array("GET /v2/library/demo/blobs/\(layer.digest)?ns=docker.io HTTP/1.1\r\nHost: test\r\n\r\n".utf8))
        #expect(try await connection.responseHead().status == 200)
        daemon.process.send(SIGTERM)
        #expect(try await daemon.process.wait() == .exited(0))
    }

    @Test func saysWhyItCannotStart() async throws {
        let layout = try await TestImages.small()
        let directory = try TemporaryDirectory()
        let taken = try await TestDaemon.start(store: layout.path)
        try directory.write("not json", to: "broken/index.json")
        try directory.write("notes", to: "other/file.txt")
        try directory.write(#"{"imageLayoutVersion":"1.0.0"}"#, to: "broken/oci-layout")
        let cases: [(store: String, address: String, mentioned: [String])] = [
            (layout.path, taken.registry, ["cannot listen on \(taken.registry)", "choose another port"]),
            (layout.path, "192.0.2.1:5000", ["192.0.2.1", "no such address"]),
            (directory.path("other"), "127.0.0.1:0", ["other", "file.txt", "skopeo copy"]),
            (directory.path("broken"), "127.0.0.1:0", ["broken", "spegel verify"]),
        ]
        for (store, address, mentioned) in cases {
            let result = try await Command.run(
                try Project.program(), "registry", "--store", store, "--registry-addr", address, "--metrics-addr",
                "\(LoopbackAddress.next()):0")
            #expect(result.status == .exited(1))
            let line = try #require(LogLine.all(in: result.errors).last, "\(result)")
            #expect(line.level == "ERROR" && line.message == "cannot start", "\(line.fields)")
            let text = "\(line["error"] ?? "") \(line["hint"] ?? "")"
            for part in mentioned { #expect(text.contains(part), "\(part) in \(text)") }
        }
    }

    /// A cluster's first node: no image yet, and no peer to begin with.
    @Test func aMissingDirectoryBecomesALayoutAndStaticNeedsNoPeers() async throws {
        let directory = try TemporaryDirectory()
        let daemon = try await TestDaemon.start(
            store: directory.path("new/layout"), ports: .init(registry: 5000),
            arguments: ["--bootstrap-kind", "static"])
        #expect(try await daemon.request("GET", "/v2/").status == 200)
        #expect(FileManager.default.fileExists(atPath: directory.path("new/layout/oci-layout")))
        let layout = try await TestImages.small()
        try await Command.check(
            "skopeo", "--insecure-policy", "copy", "--quiet", "oci:\(layout.path):\(TestImages.demo)",
            "oci:\(directory.path("new/layout")):\(TestImages.demo)")
        _ = try await daemon.process.until("the new image being served") { () -> Bool? in
            try await daemon.request("HEAD", "/v2/library/demo/manifests/1.0?ns=docker.io").status == 200 ? true : nil
        }
        daemon.process.send(SIGTERM)
        #expect(try await daemon.process.wait() == .exited(0))
    }

    /// Nobody reads standard error: lines are dropped, requests are answered.
    @Test func standardErrorThatIsNotReadStopsNothing() async throws {
        let layout = try await TestImages.small()
        let address = LoopbackAddress.next()
        let directory = try TemporaryDirectory()
        let fifo = directory.path("stderr")
        #expect(mkfifo(fifo, 0o600) == 0)
        // Held open for both directions and never read.
        let held = open(fifo, O_RDWR)
        defer { close(held) }
        let process = try await ChildProcess.start([
            "/bin/sh", "-c",
            "exec \(try Project.program()) --log-level DEBUG registry --store \(layout.path) --registry-addr \(address):5000 "
                + "--metrics-addr \(address):9090 2>\(fifo)",
        ])
        let connection = try await process.until("the daemon listening") { () -> RawConnection? in
            try? RawConnection(address, 5000)
        }
        // More lines than a pipe and the queue hold.
        let path = "/v2/library/demo/manifests/none-\(String(repeating: "x", count: 100))?ns=docker.io"
        for _ in 0..<6000 { #expect(try await connection.request("HEAD", path).status == 404) }
        process.send(SIGTERM)
        #expect(try await process.wait() == .exited(0))
    }

    /// Out of descriptors the daemon waits, says so once, and goes on when there are some again.
    @Test func outOfDescriptorsIsSurvived() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(
            store: layout.path, wrapper: ["prlimit", "--nofile=64:64"])
        var connections: [RawConnection] = []
        for _ in 0..<100 { connections.append(try daemon.connect()) }
        _ = try await daemon.process.until("the message") { () -> Bool? in
            daemon.log.contains { $0.message == "connections cannot be accepted for now" } ? true : nil
        }
        connections = []
        _ = try await daemon.process.until("requests being answered again") { () -> Bool? in
            (try? await daemon.request("GET", "/livez").status) == 200 ? true : nil
        }
        #expect(daemon.log.filter { $0.message == "connections cannot be accepted for now" }.count == 1)
        daemon.process.send(SIGHUP)
        #expect(try await daemon.process.wait() == .exited(0))
        #expect(daemon.log.last?.message == "stopped")
    }

    /// Clients do not get the last descriptors: without any, the runtime's thread pool ends the process.
    @Test func theLastDescriptorsAreNotForClients() async throws {
        let limit = 128
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(
            store: layout.path, wrapper: ["prlimit", "--nofile=\(limit):\(limit)"])
        let target = "/v2/library/demo/blobs/\(try layout.largestLayer(of: TestImages.demo).digest)?ns=docker.io"
        let served = try daemon.connect()
        #expect(try await served.request("HEAD", target).status == 200)
        var connections: [RawConnection] = []
        for _ in 0..<2 * limit { connections.append(try daemon.connect()) }
        _ = try await daemon.process.until("the message") { () -> Bool? in
            daemon.log.contains { $0.message.hasPrefix("no file descriptors are left") } ? true : nil
        }
        for _ in 0..<30 {
            // More clients wait all the time.
            let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(daemon.process.pid)/fd").count
            #expect(open <= limit - 4)
            // A file can wait, too: then it is looked for at peers, of which there are none. The connection goes on.
            #expect([200, 404].contains(try await served.request("HEAD", target).status))
            try await Task.sleep(for: .milliseconds(50))
        }
        connections = []
        _ = try await daemon.process.until("content being served again") { () -> Bool? in
            (try? await daemon.request("HEAD", target).status) == 200 ? true : nil
        }
        daemon.process.send(SIGTERM)
        #expect(try await daemon.process.wait() == .exited(0))
    }

    @Test func healthChecksAreOnTheMetricsPortToo() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path)
        for path in ["/livez", "/readyz"] {
            #expect(try await RawConnection(daemon.address, 9090).request("GET", path).status == 200)
        }
        daemon.process.send(SIGTERM)
        _ = try await daemon.process.wait()
    }

    @Test func theHelpPageHasDefaultsAndVariables() async throws {
        let page = try await Command.check(try Project.program(), "registry", "--help")
        #expect(page.contains("Default: :5000. Variable: REGISTRY_ADDR"))
    }

    @Test func filtersAndCredentialsComeFromOptions() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(
            store: layout.path,
            arguments: ["--mirrored-registries", "https://docker.io", "--registry-filters", "demo:docker$"])
        #expect(try await daemon.request("HEAD", "/v2/library/demo/manifests/1.0?ns=docker.io").status == 200)
        #expect(try await daemon.request("HEAD", "/v2/library/demo/manifests/docker?ns=docker.io").status == 404)
        #expect(try await daemon.request("HEAD", "/v2/acme/second/manifests/v2?ns=quay.io").status == 404)
    }
}
