import ArgumentParser
import Foundation
import MirrorServer

/// Many connections at once: idle ones and ones that read slowly, and what a client in a hurry notices of them.
struct ConnectionsBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "connections",
        abstract: "Latency and memory with many idle connections and slow readers."
    )

    @Option(help: "Idle keep-alive connections, each of which has made one request.") var idle = 10_000
    @Option(help: "Connections that read a large blob slowly.") var slow = 500
    @Option(help: "Requests that are timed.") var requests = 20_000
    @Option(help: "Event loops; as many as there are cores by default.") var workers: Int?

    func validate() throws {
        guard idle >= 0, slow >= 0, requests > 0, workers ?? 1 > 0 else {
            throw ValidationError("all numbers must be positive")
        }
    }

    func run() async throws {
        let limit = OpenFileLimit.raise()
        guard limit >= UInt64(idle + slow + 100) else {
            throw BenchmarkError("only \(limit) open files are allowed here; raise the hard limit (ulimit -Hn)")
        }
        let layout = try ServedLayout(layerMiB: 256)
        defer { layout.remove() }
        let workers = self.workers ?? ProcessInfo.processInfo.activeProcessorCount
        let server = try OwnServer(layout: layout, eventLoops: workers)
        defer { server.stop() }
        print("machine: \(Machine.description)\n\(workers) event loops\n")
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 4096)
        defer { buffer.deallocate() }
        var table = Table(header: [
            "manifest requests while there are", "p50 us", "p99 us", "p99.9 us", "max us", "server RSS MiB",
        ])

        try measure("no other connections", server, layout, buffer, &table)
        var idlers: [ClientSocket] = []
        for _ in 0..<idle {
            let client = try ClientSocket(port: server.port)
            _ = try client.get("/v2/", buffer: buffer)
            idlers.append(client)
        }
        try measure("\(idle) idle connections", server, layout, buffer, &table)
        var readers: [ClientSocket] = []
        for _ in 0..<slow {
            let client = try ClientSocket(port: server.port, receiveBuffer: 4096)
            try client.send("GET \(server.blobPath(layout)) HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            readers.append(client)
        }
        // They go on reading, a little each, while requests are timed.
        let trickle = Trickle(readers)
        try measure("\(idle) idle and \(slow) slow", server, layout, buffer, &table)
        let read = trickle.stop()
        let alive = idlers.filter { (try? $0.get("/v2/", buffer: buffer)) != nil }.count
        idlers = []
        readers = []
        try measure("none of them any more", server, layout, buffer, &table)
        print(table.printed())
        print(
            "\nslow readers took \((Double(read) / 1024).text(0)) KiB meanwhile; \(alive) of \(idle) idle connections still answer"
        )
    }

    private func measure(
        _ name: String, _ server: OwnServer, _ layout: ServedLayout, _ buffer: UnsafeMutableRawBufferPointer,
        _ table: inout Table
    ) throws {
        let path = server.manifestPath(layout)
        let clients = try (0..<8).map { _ in try ClientSocket(port: server.port) }
        for client in clients { _ = try client.get(path, buffer: buffer) }
        let clock = ContinuousClock()
        var times: [Double] = []
        for number in 0..<requests {
            let start = clock.now
            _ = try clients[number % clients.count].get(path, buffer: buffer)
            times.append((clock.now - start) / .microseconds(1))
        }
        times.sort()
        func at(_ quantile: Double) -> String {
            times[min(times.count - 1, Int(Double(times.count) * quantile))].text(0)
        }
        table.rows.append([
            name, at(0.5), at(0.99), at(0.999), at(1), ProcessUsage(of: server.processes).residentMiB.text(1),
        ])
    }
}

/// Reads a few bytes from each of some connections in turn, on a thread of its own.
private final class Trickle: @unchecked Sendable {
    private let lock = NSLock()
    private var stopped = false
    private var total = 0
    private let done = DispatchSemaphore(value: 0)

    init(_ clients: [ClientSocket]) {
        let descriptors = clients.map(\.descriptor)
        Thread.detachNewThread { [self] in
            var bytes = [UInt8](repeating: 0, count: 512)
            while !lock.withLock({ stopped }) {
                for descriptor in descriptors {
                    let count = recv(descriptor, &bytes, bytes.count, CInt(MSG_DONTWAIT))
                    if count > 0 { lock.withLock { total += count } }
                }
                usleep(20_000)
            }
            done.signal()
        }
    }

    /// - Returns: bytes that were read.
    func stop() -> Int {
        lock.withLock { stopped = true }
        done.wait()
        return lock.withLock { total }
    }
}
