import Foundation
import OCIDistribution
import TestSupport
import Testing

/// Metrics as Prometheus sees them, and what is built on them.
@Suite(.timeLimit(.minutes(10))) struct MonitoringTests {
    // MARK: Names

    /// The names of the daemon's own metrics in a text, without the suffixes of a histogram's samples.
    private func names(in text: String) -> Set<String> {
        Set(
            text.matches(of: /\b(?:spegel|http|process)_[a-z0-9_]*[a-z0-9]\b/).map { match in
                var name = String(match.output)
                for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
                    name.removeLast(suffix.count)
                }
                return name
            })
    }

    private func page(_ daemon: TestDaemon, headers: [String: String] = [:]) async throws -> RawConnection.Response {
        try await RawConnection(daemon.address, TestDaemon.Ports.usual.metrics).request(
            "GET", "/metrics", headers: headers)
    }

    @Test func dashboardAlertsAndDocumentationNameWhatTheDaemonExposes() async throws {
        let node = try await TestNode.start(joining: nil, mounted: true)
        let response = try await page(node.daemon)
        #expect(response.status == 200)
        let text = String(decoding: response.body, as: UTF8.self)
        let exposed = Set(
            text.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }.map { String($0.split(separator: " ")[2]) })
        let monitoring = "\(Project.root)/deploy/monitoring"
        for file in ["spegel-dashboard.json", "alerts.yaml", "promtool-tests.yaml"] {
            let used = names(in: try String(contentsOfFile: "\(monitoring)/\(file)", encoding: .utf8))
            #expect(used.count >= 10)
            #expect(used.subtracting(exposed) == [], "\(file)")
        }
        let documentation = try String(contentsOfFile: "\(Project.root)/docs/monitoring.md", encoding: .utf8)
        #expect(names(in: documentation) == exposed)
        // Everything has been described.
        for line in text.split(separator: "\n") where line.hasPrefix("# HELP ") {
            let words = line.split(separator: " ", maxSplits: 3)
            #expect(words[3] != words[2].split(separator: "_").joined(separator: " ") + ".", "\(line)")
        }
        try await checkMetrics(text)
    }

    /// `promtool check metrics`.
    private func checkMetrics(_ page: String) async throws {
        let directory = try TemporaryDirectory("metrics")
        try directory.write(page, to: "page")
        let promtool = try await ChildProcess.start(
            ["promtool", "check", "metrics"], input: .file(directory.path("page")))
        // The end of a file opened for both directions is seen as that of any other.
        let status = try await promtool.wait()
        #expect(status == .exited(0), "\(promtool.log)")
        #expect(promtool.output + promtool.errors == "")
    }

    @Test func theFormFollowsTheRequest() async throws {
        let directory = try TemporaryDirectory("forms")
        let daemon = try await TestDaemon.start(
            store: directory.path("store"), ports: .usual)
        let plain = try await page(daemon)
        #expect(plain.header("content-type") == "text/plain; version=0.0.4; charset=utf-8")
        let compressed = try await page(daemon, headers: ["Accept-Encoding": "gzip"])
        #expect(compressed.header("content-encoding") == "gzip")
        #expect(compressed.body.count < plain.body.count / 4)
        #expect(compressed.body.starts(with: [0x1f, 0x8b]))
        let open = try await page(daemon, headers: ["Accept": "application/openmetrics-text;version=1.0.0"])
        #expect(open.header("content-type")?.hasPrefix("application/openmetrics-text; version=1.0.0") ?? false)
        #expect(String(decoding: open.body, as: UTF8.self).hasSuffix("\n# EOF\n"))
        // Prometheus' own parser of both.
        try await checkMetrics(String(decoding: plain.body, as: UTF8.self))
    }

    // MARK: Prometheus

    /// A Prometheus that scrapes daemons every second.
    private struct Prometheus {
        let process: ChildProcess
        let address: String
        let port: Int

        static func start(_ daemons: [TestDaemon], in directory: TemporaryDirectory) async throws -> Prometheus {
            let address = LoopbackAddress.next()
            let port = try LoopbackAddress.freePort(on: address)
            let targets = daemons.map { "'\($0.address):\(TestDaemon.Ports.usual.metrics)'" }.joined(separator: ", ")
            try directory.write(
                """
                global: {scrape_interval: 1s, scrape_timeout: 1s}
                rule_files: ['\(Project.root)/deploy/monitoring/alerts.yaml']
                scrape_configs: [{job_name: spegel, static_configs: [{targets: [\(targets)]}]}]

                """, to: "prometheus.yaml")
            let process = try await ChildProcess.start([
                "prometheus", "--config.file=\(directory.path("prometheus.yaml"))",
                "--storage.tsdb.path=\(directory.path("data"))", "--web.listen-address=\(address):\(port)",
            ])
            _ = try await process.until("Prometheus listening") { () -> Bool? in
                (try? RawConnection(address, port)) == nil ? nil : true
            }
            return Prometheus(process: process, address: address, port: port)
        }

        /// The value of an expression that gives one series or none; nil for none.
        func value(_ expression: String) async throws -> Double? {
            let query = expression.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
            let response = try await RawConnection(address, port).request("GET", "/api/v1/query?query=\(query)")
            // It answers 503 while it starts.
            guard response.status == 200 else { return nil }
            let object = try JSONSerialization.jsonObject(with: Data(response.body)) as? [String: Any]
            let result = (object?["data"] as? [String: Any])?["result"] as? [[String: Any]] ?? []
            guard result.count <= 1 else { throw HarnessFailure("\(expression) has \(result.count) series") }
            return ((result.first?["value"] as? [Any])?.last as? String).flatMap { Double($0) }
        }

        /// Waits until an expression has a value; scrapes come every second.
        func until(_ expression: String, is wanted: Double) async throws {
            var last: Double?
            do {
                _ = try await process.until("\(expression) == \(wanted)") { () -> Bool? in
                    last = try await value(expression)
                    return last == wanted ? true : nil
                }
            } catch {
                throw HarnessFailure("\(expression) is \(last.map { "\($0)" } ?? "absent"), not \(wanted): \(error)")
            }
        }
    }

    /// Twelve hits, five misses and three broken transfers on three nodes: every counter equals what was done.
    @Test func prometheusCountsWhatWasDone() async throws {
        let directory = try TemporaryDirectory("story")
        let (small, medium) = (try await TestImages.small(), try await TestImages.medium())
        let first = LoopbackAddress.next()
        func start(_ store: String, _ address: String) async throws -> TestDaemon {
            try await TestDaemon.start(
                store: store, address: address, ports: .usual,
                arguments: [
                    "--bootstrap-kind", "http", "--http-bootstrap-url", "http://\(first):5002/id",
                    "--mirrored-registries", "https://docker.io", "--mirror-resolve-timeout", "10s",
                ] + (address == first ? ["--http-bootstrap-addr", "\(address):5002"] : []))
        }
        let node = try await start(directory.path("empty"), first)
        let provider = try await start(
            try await small.copy(to: directory.path("small")).path, LoopbackAddress.next())
        let breaking = try await start(
            try await medium.copy(to: directory.path("medium")).path, LoopbackAddress.next())
        let layer = try medium.largestLayer(of: TestImages.demo)
        // What only one node has, as the others are asked in no order.
        let shared = Set(try medium.digests(of: TestImages.demo))
        let hits = Array(try small.digests(of: TestImages.demo).filter { !shared.contains($0) }.prefix(6))
        #expect(hits.count == 6)
        for (digest, owner) in hits.map({ ($0, provider) }) + [(layer.digest, breaking)] {
            try await untilFound(digest, at: owner, by: node)
        }
        let prometheus = try await Prometheus.start([node, provider, breaking], in: directory)
        let own = #"instance="\#(node.address):9090""#
        try await prometheus.until("count(spegel_ready == 1)", is: 3)
        try await prometheus.until("spegel_router_known_peers{\(own)}", is: 2)
        // All series are there before the first event.
        for series in [
            #"spegel_mirror_requests_total{\#(own),registry="docker.io",cache="hit"}"#,
            #"spegel_mirror_misses_total{\#(own),registry="docker.io",reason="interrupted"}"#,
            #"spegel_mirror_saved_bytes_total{\#(own),registry="docker.io"}"#,
            #"spegel_mirror_verifications_total{\#(own),result="verified"}"#,
        ] {
            try await prometheus.until(series, is: 0)
        }

        var saved = 0
        for digest in hits + hits {
            let response = try await node.request("GET", MirrorCluster.blob(digest))
            #expect(response.status == 200)
            #expect(Digest.hash(of: response.body).description == digest)
            saved += response.body.count
        }
        for number in 0..<5 {
            let digest = Digest.hash(of: "nothing \(number)".utf8)
            #expect(try await node.request("GET", MirrorCluster.blob("\(digest)")).status == 404)
        }
        // Clients that have the head of a large layer do not read on until the only provider is dead.
        var clients: [RawConnection] = []
        for _ in 0..<3 {
            let client = try node.connect(receiveBuffer: 16_384)
            try await client.send(Array("GET \(MirrorCluster.blob(layer.digest)) HTTP/1.1\r\nHost: test\r\n\r\n".utf8))
            #expect(try await client.responseHead().status == 200)
            clients.append(client)
        }
        breaking.process.send(SIGKILL)
        for client in clients { #expect((try? await client.readToEnd().count) ?? 0 < layer.size) }

        let docker = #"\#(own),registry="docker.io""#
        let expected: [(String, Double)] = [
            (#"spegel_mirror_requests_total{\#(docker),cache="hit"}"#, 12),
            (#"spegel_mirror_requests_total{\#(docker),cache="miss"}"#, 8),
            (#"spegel_mirror_misses_total{\#(docker),reason="absent"}"#, 5),
            (#"spegel_mirror_misses_total{\#(docker),reason="interrupted"}"#, 3),
            ("sum(spegel_mirror_misses_total{\(own)})", 8),
            ("sum(spegel_mirror_requests_total{\(own)})", 20),
            ("spegel_mirror_saved_bytes_total{\(docker)}", Double(saved)),
            ("sum(spegel_mirror_unverified_bytes_total{\(own)})", 0),
            ("sum(spegel_mirror_served_bytes_total{\(own)})", 0),
            (#"sum(spegel_mirror_served_bytes_total{instance="\#(provider.address):9090"})"#, Double(saved)),
            (#"spegel_mirror_verifications_total{\#(own),result="verified"}"#, 12),
            (#"spegel_mirror_verifications_total{\#(own),result="mismatch"}"#, 0),
            ("spegel_mirror_client_disconnects_total{\(own)}", 0),
            ("spegel_mirror_transfers_inflight{\(own)}", 0),
            (#"http_request_duration_seconds_count{\#(own),handler="blob",method="GET",code="404"}"#, 5),
            (#"http_request_duration_seconds_count{\#(own),handler="blob",method="GET",code="200"}"#, 15),
            (#"sum(spegel_mirror_requests_total{instance="\#(provider.address):9090"})"#, 0),
        ]
        for (expression, value) in expected { try await prometheus.until(expression, is: value) }
    }

    /// Waits until the DHT, asked by way of a node, names another one for a key; the node's own counters stay as they are.
    private func untilFound(_ key: String, at owner: TestDaemon, by node: TestDaemon) async throws {
        _ = try await node.process.until("\(key) being found") { () -> Bool? in
            let result = try await Command.run(
                try Project.program(), "dht", "find", key, "--dht-nodes",
                "\(node.address):\(TestDaemon.Ports.usual.router)", "--dht-timeout", "60s", "--format", "json")
            guard result.status == .exited(0) else { return nil }
            let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
            let providers = object?["providers"] as? [[String: Any]] ?? []
            return providers.flatMap { $0["addresses"] as? [String] ?? [] }.contains(owner.address) ? true : nil
        }
    }

    // MARK: Bounds

    /// Requests with invented registries, methods, paths and agents leave the number of series and the memory as they were.
    @Test func inventedRequestsCreateNoSeriesWithoutLimit() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(
            store: layout.path, ports: .usual,
            arguments: ["--bootstrap-kind", "static", "--mirror-resolve-timeout", "1ms"], logLevel: "INFO")
        let count = Project.isFullScale ? 100_000 : 4000
        var random = SystemRandomNumberGenerator()
        let seed = UInt64.random(in: 0 ... .max, using: &random)
        var state = seed
        func next(_ bound: Int) -> Int {
            // SplitMix64.
            state &+= 0x9e37_79b9_7f4a_7c15
            var value = state
            value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
            return Int((value ^ (value >> 31)) % UInt64(bound))
        }
        func send(_ number: Int) async throws {
            let connection = try daemon.connect()
            for _ in 0..<number {
                let method = ["GET", "GET", "HEAD", "PUT", "DELETE", "PROPFIND", "X\(next(1000))"][next(7)]
                let registry = "r\(next(1_000_000)).example"
                let path =
                    [
                        "/v2/a\(next(1000))/manifests/t\(next(1000))?ns=\(registry)", "/x\(next(1_000_000))",
                        "/v2/a/blobs/\(Digest.hash(of: "\(next(1_000_000))".utf8))?ns=\(registry)",
                        "/v2/a\(next(1000))/tags/list?ns=\(registry)",
                    ][next(4)]
                _ = try await connection.request(method, path, headers: ["User-Agent": "agent-\(next(1_000_000))"])
            }
        }
        func series() async throws -> [Substring] {
            String(decoding: try await page(daemon).body, as: UTF8.self).split(separator: "\n")
                .filter { !$0.hasPrefix("#") }
        }
        try await send(count / 2)
        let (before, memory) = (try await series(), resident(daemon))
        try await send(count / 2)
        let (after, memoryAfter) = (try await series(), resident(daemon))
        // A rare pair of method and status may come late: some series of two histograms.
        #expect(after.count - before.count < 400, "seed \(seed)")
        #expect(after.count < 4000, "seed \(seed)")
        #expect(memoryAfter - memory < 24 << 20, "seed \(seed): \(memory) to \(memoryAfter)")
        #expect(after.contains { $0.hasPrefix("spegel_mirror_requests_total{") && $0.contains(#"registry="other""#) })
        // A registry of the store still has its name, although no request had named it before.
        let digest = Digest.hash(of: "nothing".utf8)
        #expect(try await daemon.request("GET", "/v2/a/blobs/\(digest)?ns=quay.io").status == 404)
        let named = try await series().filter {
            $0.hasPrefix("spegel_mirror_requests_total{") && $0.contains(#"cache="miss""#)
                && $0.contains(#"registry="quay.io"} 1"#)
        }
        #expect(named.count == 1)
    }

    private func resident(_ daemon: TestDaemon) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(daemon.process.pid)/statm", encoding: .utf8)) ?? ""
        return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
    }

    // MARK: Logs

    @Test func theLogLevelFollowsSignals() async throws {
        let directory = try TemporaryDirectory("levels")
        let daemon = try await TestDaemon.start(store: directory.path("store"), logLevel: "INFO")
        func debugLines() -> Int { daemon.log.count { $0.level == "DEBUG" } }
        _ = try await daemon.request("GET", "/v2/")
        #expect(debugLines() == 0)
        daemon.process.send(SIGUSR1)
        _ = try await daemon.process.until("debug lines") { () -> Bool? in
            _ = try await daemon.request("GET", "/v2/")
            return debugLines() > 0 ? true : nil
        }
        daemon.process.send(SIGUSR2)
        _ = try await daemon.process.until("the level being INFO again") { () -> Bool? in
            daemon.log.last { $0.message == "the log level was changed by a signal" }?["log_level"] as? String == "INFO"
                ? true : nil
        }
        let lines = debugLines()
        _ = try await daemon.request("GET", "/v2/")
        #expect(debugLines() == lines)
        #expect(daemon.process.isRunning)
    }
}
