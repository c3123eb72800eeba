import Foundation
import MirrorServer

/// Many connections at once: idle ones and ones that read slowly, and what a client in a hurry notices of them.
struct ConnectionsMeasurement {
    private let images: BenchmarkImages
    private let workers: Int
    /// Idle keep-alive connections, each of which has made one request.
    private let idle: Int
    /// Connections that read a large blob slowly.
    private let slow: Int
    /// Requests that are timed.
    private let requests: Int

    init(_ context: BenchmarkContext, _ images: BenchmarkImages) {
        self.images = images
        workers = context.workers
        (idle, slow, requests) = context.quick ? (1000, 100, 2000) : (10_000, 500, 20_000)
    }

    func section() throws -> Section {
        let limit = OpenFileLimit.raise()
        guard limit >= UInt64(idle + slow + 100) else {
            throw BenchmarkError("only \(limit) open files are allowed here; raise the hard limit (ulimit -Hn)")
        }
        let server = try OwnServer(images, eventLoops: workers)
        defer { server.stop() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 4096)
        defer { buffer.deallocate() }
        var section = Section(
            title: "a manifest while there are other connections", unit: "ms (p99)", higherIsBetter: false)
        section.measurements.append(try measure("none", server, buffer))
        var idlers: [ClientSocket] = []
        for _ in 0..<idle {
            let client = try ClientSocket(port: server.port)
            _ = try client.get("/v2/", buffer: buffer)
            idlers.append(client)
        }
        section.measurements.append(try measure("\(idle) idle", server, buffer))
        var readers: [ClientSocket] = []
        for _ in 0..<slow {
            let client = try ClientSocket(port: server.port, receiveBuffer: 4096)
            try client.send("GET \(server.path(images.layer)) HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            readers.append(client)
        }
        // They go on reading, a little each, while requests are timed.
        let trickle = Trickle(readers)
        var row = try measure("\(idle) idle, \(slow) slow", server, buffer)
        _ = trickle.stop()
        let alive = idlers.filter { (try? $0.get("/v2/", buffer: buffer)) != nil }.count
        row.values.append(.init(name: "idle ones that still answer", value: Double(alive), unit: ""))
        section.measurements.append(row)
        return section
    }

    private func measure(
        _ name: String, _ server: OwnServer, _ buffer: UnsafeMutableRawBufferPointer
    ) throws -> Measurement {
        let path = server.path(images.manifest)
        let clients = try (0..<8).map { _ in try ClientSocket(port: server.port) }
        for client in clients { _ = try client.get(path, buffer: buffer) }
        var latencies = Latencies()
        for number in 0..<requests {
            let start = ContinuousClock.now
            _ = try clients[number % clients.count].get(path, buffer: buffer)
            latencies.record(start.duration(to: .now))
        }
        var row = Measurement(name: name, figure: Summary([latencies.milliseconds(99)]))
        row.values = latencies.values.filter { $0.name != "p99" }
        row.peakMiB = ProcessUsage(of: server.processes).residentMiB
        return row
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
