import ContainerdTestKit
import Foundation
import TestSupport

/// What daemons keep resident: idle, under many pulls at once through a peer, and afterwards; and what many connections cost.
struct MemoryBenchmark {
    private let context: BenchmarkContext
    private let lab: Lab

    init(_ context: BenchmarkContext, _ lab: Lab) {
        self.context = context
        self.lab = lab
    }

    func measure(_ report: inout SuiteReport) async throws {
        let images = try lab.images()
        let pairs = try await lab.pairs()
        let pulls = images.mediumLayers.count
        report.notes.append(
            "\(pulls) pulls: as many connections, each for another blob of \(images.mediumLayers[0].bytes >> 20) MiB that the "
                + "peer has, all at once; the peak is the kernel's")
        var section = Section(
            title: "resident memory of the second node of two", unit: "MiB under \(pulls) pulls", higherIsBetter: false)
        for pair in pairs {
            // A daemon of its own for this: what other suites left behind is not idle.
            try await pair.stopNode(1)
            let node = try await pair.startNode(1)
            _ = try await eventually("\(pair.name) serves content of its peer", detail: { node.program.errors }) {
                try? ClientSocket(host: node.host, port: node.port).status(node.path(images.manifest)) == 200
                    ? true : nil
            }
            try await Task.sleep(for: .seconds(context.quick ? 2 : 10))
            let idle = ProcessUsage(of: node.processes).residentMiB
            let usage = UsageMeter(node.processes)
            let begin = ContinuousClock.now
            let failures = try ConcurrentReaders.fetch(
                host: node.host, port: node.port, paths: images.mediumLayers.map { (node.path($0), $0.bytes) })
            let seconds = begin.duration(to: .now) / .seconds(1)
            let peak = usage.peakMiB
            let cpu = usage.cpuSeconds
            try await Task.sleep(for: .seconds(context.quick ? 2 : 10))
            var row = Measurement(name: pair.name, figure: Summary([peak]), cpu: Summary([cpu]))
            row.values = [
                .init(name: "idle", value: idle, unit: "MiB", places: 1),
                .init(name: "afterwards", value: ProcessUsage(of: node.processes).residentMiB, unit: "MiB", places: 1),
                .init(name: "took", value: seconds, unit: "s", places: 2),
                .init(name: "failed", value: Double(failures), unit: ""),
            ]
            section.measurements.append(row)
            guard pair.name == "spegel" else { continue }
            report.budgets += [
                Budget("resident memory, idle", "<= 30 MiB", measured: "\(idle.text(1)) MiB", met: idle <= 30),
                Budget(
                    "resident memory, \(pulls) pulls", "<= 64 MiB", measured: "\(peak.text(1)) MiB", met: peak <= 64),
                Budget(
                    "pulls at once", "\(pulls) pulls at once succeed", measured: "\(failures) failed",
                    met: failures == 0, always: true),
            ]
        }
        section.cpuUnit = "s"
        report.sections.append(section)
        report.sections.append(try ConnectionsMeasurement(context, images).section())
    }
}

/// Reads many responses at once on one thread.
enum ConcurrentReaders {
    /// - Parameter paths: what to ask for, and the bytes expected.
    /// - Returns: how many did not come whole.
    static func fetch(host: String, port: Int, paths: [(path: String, bytes: Int)]) throws -> Int {
        var clients: [(socket: ClientSocket, expected: Int, received: Int)?] = []
        for path in paths {
            let socket = try ClientSocket(host: host, port: port)
            try socket.send("GET \(path.path) HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            clients.append((socket, path.bytes, 0))
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
        defer { buffer.deallocate() }
        var failures = 0
        while clients.contains(where: { $0 != nil }) {
            let open = clients.indices.filter { clients[$0] != nil }
            var polls = open.map { pollfd(fd: clients[$0]?.socket.descriptor ?? -1, events: Int16(POLLIN), revents: 0) }
            guard poll(&polls, nfds_t(polls.count), 60_000) > 0 else { return failures + open.count }
            for (index, state) in zip(open, polls) where state.revents != 0 {
                guard let client = clients[index] else { continue }
                let count = recv(client.socket.descriptor, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT))
                if count > 0 {
                    // The status line comes first, in one piece.
                    if client.received == 0,
                        !String(decoding: buffer[..<min(count, 16)], as: UTF8.self).hasPrefix("HTTP/1.1 200")
                    {
                        failures += 1
                        clients[index] = nil
                        continue
                    }
                    clients[index]?.received += count
                } else if count == 0 || errno != EAGAIN {
                    // The head is at most 2 KiB beyond the body.
                    if client.received < client.expected || client.received > client.expected + 2048 { failures += 1 }
                    clients[index] = nil
                }
            }
        }
        return failures
    }
}
