import ContainerdTestKit
import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport
import Testing

@testable import ContainerdContentStore

/// Very many changes leave nothing behind.
@Suite(.timeLimit(.minutes(20))) struct EventLoadTests {
    @Test func twentyFourThousandImageEventsLeaveIndexAndMemoryAsTheyWere() async throws {
        let daemon = try await ContainerdDaemon.start()
        var sample = SampleContent(seed: 51)
        let image = sample.image()
        let file = "\(daemon.path)/image.tar"
        try ImageArchive.write([("quay.io/a/app:1", image.manifest.descriptor)], blobs: image.blobs, to: file)
        try await daemon.ctr("images", "import", "--no-unpack", "--all-platforms", file)
        // A process of its own, because other tests use this one's memory; and with one heap, because how its threads are
        // spread over several would show in what is resident.
        let probe = try await ChildProcess.start(
            ["env", "MALLOC_ARENA_MAX=1", try Project.program("containerd-probe"), daemon.socketPath, "k8s.io"],
            input: .pipe, output: (daemon.path, "probe"))
        probe.write(line: "wait")
        let client = try ContainerdClient(
            socketPath: daemon.socketPath, namespace: "k8s.io", callTimeout: .seconds(60))
        let running = Task { try await client.run() }

        // What the first thousands allocate stays for those that follow.
        try await churn(0..<3000, client, image.manifest.descriptor)
        var resident = [try await settled(probe, contents: image.blobs.count)]
        for first in stride(from: 3000, to: 15_000, by: 4000) {
            try await churn(first..<(first + 4000), client, image.manifest.descriptor)
            resident.append(try await settled(probe, contents: image.blobs.count))
        }
        print("resident memory before \(resident[0]) and after each 8000 events \(resident[1...]) bytes")
        // A leak grows with every round. What lies scattered in the heap does not.
        let growth = zip(resident, resident.dropFirst()).map { $1 - $0 }
        let smallest = try #require(growth.min())
        #expect(smallest < (2 << 20), "\(growth)")

        client.shutdown()
        try? await running.value
        probe.write(line: "exit")
        #expect(try await probe.wait() == .exited(0), "\(probe.errors)")
        try await daemon.stop()
    }

    /// Each image is created and deleted, which is two events.
    private func churn(_ images: Range<Int>, _ client: ContainerdClient, _ target: Descriptor) async throws {
        _ = try await mapConcurrently(images, limit: 32) { number in
            let name = "registry.example/churn/repository-\(number % 500):v\(number)"
            try await client.setImage(ContainerdImage(name: name, target: target))
            try await client.deleteImage(named: name)
        }
    }

    /// Waits until only the one image is known, and returns the memory in use.
    private func settled(_ probe: ChildProcess, contents: Int) async throws -> Int {
        _ = try await eventually("only one image is left", detail: { probe.output + probe.errors }) {
            probe.write(line: "counts")
            try await Task.sleep(for: .milliseconds(50))
            return probe.output.hasSuffix("counts 1 \(contents)\n") ? true : nil
        }
        // The image is the only one for a moment between two events as well: what is still to be done of them needs memory.
        var last = try await memory(of: probe)
        var unchanged = 0
        return try await eventually("the memory stays as it is") {
            try await Task.sleep(for: .milliseconds(200))
            let now = try await memory(of: probe)
            unchanged = abs(now - last) < 256 << 10 ? unchanged + 1 : 0
            last = now
            return unchanged == 10 ? now : nil
        }
    }

    private func memory(of probe: ChildProcess) async throws -> Int {
        let answers = probe.output.split(separator: "\n").filter { $0.hasPrefix("memory") }.count
        probe.write(line: "memory")
        return try await eventually("the memory is reported") {
            let lines = probe.output.split(separator: "\n").filter { $0.hasPrefix("memory") }
            return lines.count > answers ? lines.last.flatMap { Int($0.dropFirst(7)) } : nil
        }
    }
}
