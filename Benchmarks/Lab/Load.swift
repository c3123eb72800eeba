import Foundation

/// Loads of requests on one server, and what they cost it.
enum Load {
    /// Fetches content one time after the other on one connection.
    ///
    /// - Returns: GiB/s, and CPU seconds of the server for each GiB.
    static func fetch(_ server: any BenchmarkServer, _ content: BenchmarkImages.Content, times: Int = 1) throws
        -> Sample
    {
        let client = try ClientSocket(host: server.host, port: server.port)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        let gib = Double(content.bytes * times) / 1_073_741_824
        let usage = UsageMeter(server.processes)
        let start = ContinuousClock.now
        for _ in 0..<times {
            let length = try client.get(server.path(content), buffer: buffer)
            guard length == Int64(content.bytes) else { throw BenchmarkError("\(server.name) sent \(length) bytes") }
        }
        let seconds = start.duration(to: .now) / .seconds(1)
        return Sample(figure: gib / seconds, cpu: usage.cpuSeconds / gib, peakMiB: usage.peakMiB)
    }

    /// Asks for one path after the other, beginning anew after the last, on some connections at once.
    ///
    /// - Returns: requests per second, and microseconds of the server's CPU for each.
    static func requests(
        _ server: any BenchmarkServer, _ contents: [BenchmarkImages.Content], connections: Int, seconds: Int
    ) throws -> Sample {
        let wrk = try Tool.find("wrk", package: "wrk")
        let usage = UsageMeter(server.processes)
        let result = try Wrk.run(
            wrk, host: server.host, port: server.port, paths: contents.map(server.path), connections: connections,
            seconds: seconds)
        return Sample(
            figure: result.rate, cpu: usage.cpuSeconds * 1e6 / max(1, result.requests), peakMiB: usage.peakMiB,
            failures: result.failures / max(1, result.requests))
    }
}

/// The load generator.
enum Wrk {
    static func run(
        _ program: String, host: String, port: Int, paths: [String], connections: Int, seconds: Int
    ) throws -> (rate: Double, requests: Double, failures: Double) {
        var arguments = ["-t", "1", "-c", "\(connections)", "-d", "\(seconds)s"]
        let script = NSTemporaryDirectory() + "spegel-benchmark-\(UUID().uuidString).lua"
        defer { try? FileManager.default.removeItem(atPath: script) }
        if paths.count > 1 {
            let list = paths.map { "\"\($0)\"" }.joined(separator: ",")
            let text =
                "local paths = {\(list)}\nlocal i = 0\n"
                + "request = function() i = i % #paths + 1; return wrk.format(nil, paths[i]) end\n"
            try text.write(toFile: script, atomically: true, encoding: .utf8)
            arguments += ["-s", script]
        }
        let output = try Tool.run(program, arguments + ["http://\(host):\(port)\(paths[0])"])
        let lines = output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        func last(_ prefix: String) -> Double? {
            lines.first { $0.hasPrefix(prefix) }?.split(separator: " ").last.flatMap { Double($0) }
        }
        guard let rate = last("Requests/sec:"),
            let requests = lines.first(where: { $0.contains(" requests in ") })?.split(separator: " ").first
                .flatMap({ Double($0) })
        else { throw BenchmarkError("wrk said \(output)") }
        // Socket errors: connect 0, read 1, write 0, timeout 2
        let errors = lines.first { $0.hasPrefix("Socket errors") }.map { line in
            line.split { !$0.isNumber }.compactMap { Double($0) }.reduce(0, +)
        }
        return (rate, requests, (last("Non-2xx") ?? 0) + (errors ?? 0))
    }
}

/// What some processes use from now on.
struct UsageMeter {
    private let processes: [Int32]
    private let before: ProcessUsage

    /// Begins to count, and forgets earlier peaks of memory.
    init(_ processes: [Int32]) {
        self.processes = processes
        // The kernel then sets the peak to what is resident now; where that is not allowed the peak is that of its life.
        for process in processes {
            try? "5".write(toFile: "/proc/\(process)/clear_refs", atomically: false, encoding: .utf8)
        }
        before = ProcessUsage(of: processes)
    }

    var cpuSeconds: Double { ProcessUsage(of: processes).cpuSeconds - before.cpuSeconds }

    var peakMiB: Double {
        processes.map { process in
            let line = Machine.file("/proc/\(process)/status").split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
            return (line?.split { !$0.isNumber }.first.flatMap { Double($0) } ?? 0) / 1024
        }.reduce(0, +)
    }
}
