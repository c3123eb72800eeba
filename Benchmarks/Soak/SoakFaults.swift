import ContainerdTestKit
import Foundation
import PeerRouting
import TestSupport

/// One fault after the other, with calm between them.
struct SoakFaults {
    private let soak: Soak
    private var random: SplitMix64
    private var cluster: Cluster { soak.cluster }

    private enum Fault: String, CaseIterable {
        case kill = "daemons killed", stop = "daemons stopped for a while", replace = "daemons replaced"
        case descriptors = "daemons out of descriptors", containerd = "containerds killed", disk = "disks full"
        case peer = "peers that do wrong", upstream = "upstreams down", content = "images replaced"
    }

    init(soak: Soak, seed: UInt64) {
        self.soak = soak
        random = SplitMix64(seed: seed)
    }

    mutating func next() async throws {
        try await soak.pause(.milliseconds(Int.random(in: 9000...14_000, using: &random)))
        guard !soak.isOver, let fault = Fault.allCases.randomElement(using: &random) else { return }
        // Node 0 tells of growth and is what the others join by: it is never killed.
        let node = Int.random(in: 1..<cluster.settings.nodes, using: &random)
        let length = Duration.milliseconds(Int.random(in: 500...6000, using: &random))
        let wrong = [HTTPRelay.Fault.lie, .reset, .stall, .truncate, .refuse].randomElement(using: &random) ?? .lie
        soak.ledger.count(fault: fault == .peer ? "peers that \(wrong.rawValue)" : fault.rawValue, node: node)
        soak.beginFault(lies: fault == .peer && wrong == .lie)
        switch fault {
        case .kill, .replace:
            try await cluster.stopDaemon(node, fault == .kill ? SIGKILL : SIGTERM)
            try await soak.pause(length)
            try await cluster.startDaemon(soak.program, node: node, lying: soak.spoiled.contains(node))
        case .stop:
            // Of all nodes; one that stands still has lost nothing.
            let stopped = Int.random(in: 0..<cluster.settings.nodes, using: &random)
            cluster.daemon(stopped)?.send(SIGSTOP)
            try await soak.pause(length)
            cluster.daemon(stopped)?.send(SIGCONT)
        case .descriptors: try await limitDescriptors(node, length)
        case .containerd:
            try await cluster.stores[node].stop(SIGKILL)
            try await soak.pause(length)
            try await cluster.stores[node].start()
        case .disk: try await fillDisk(node, length)
        case .peer:
            for node in soak.spoiled { cluster.setFault(wrong, of: node) }
            try await soak.pause(length + .seconds(4))
            for node in soak.spoiled { cluster.setFault(.none, of: node) }
        case .upstream:
            cluster.upstream.set(.refuse)
            try await soak.pause(length)
            cluster.upstream.set(.none)
        case .content: try await soak.addImage()
        }
        await waitUntilReady()
        soak.endFault()
    }

    private func waitUntilReady() async {
        for node in 0..<cluster.settings.nodes {
            do {
                guard cluster.daemon(node)?.isRunning == true else {
                    soak.ledger.report(.ended, "node \(node): \(cluster.log(node).suffix(500))")
                    try await cluster.startDaemon(soak.program, node: node, lying: soak.spoiled.contains(node))
                    continue
                }
                try await cluster.waitUntilReady(node)
            } catch { soak.ledger.report(.notReady, "node \(node): \(error)") }
        }
    }

    /// So few that new connections and files fail, while those that are open go on.
    private func limitDescriptors(_ node: Int, _ length: Duration) async throws {
        guard let daemon = cluster.daemon(node) else { return }
        let prlimit = try Tool.find("prlimit", package: "util-linux")
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(daemon.pid)/fd"))?.count ?? 50
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        _ = try? Tool.run(prlimit, ["--pid", "\(daemon.pid)", "--nofile=\(open + 4):\(limit.rlim_max)"])
        try await soak.pause(length)
        _ = try? Tool.run(prlimit, ["--pid", "\(daemon.pid)", "--nofile=\(limit.rlim_max):\(limit.rlim_max)"])
    }

    /// The disk of one node's containerd, up to the last bytes.
    private func fillDisk(_ node: Int, _ length: Duration) async throws {
        let path = "\(cluster.stores[node].path)/root/filler"
        var information = statvfs()
        guard statvfs("\(cluster.stores[node].path)/root", &information) == 0 else { return }
        let free = Int(information.f_bavail) * Int(information.f_frsize)
        let file = open(path, O_WRONLY | O_CREAT, 0o600)
        _ = posix_fallocate(file, 0, max(1, free - (256 << 10)))
        close(file)
        try await soak.pause(length)
        unlink(path)
    }
}
