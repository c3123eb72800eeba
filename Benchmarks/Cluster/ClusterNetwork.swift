import ContainerdTestKit
import Foundation
import TestSupport

/// How the links of the nodes behave.
struct LinkShape: Sendable {
    /// Bytes per second in each direction; nil for as fast as the machine.
    var rate: Int?
    /// Added to each packet that a node sends.
    var delay: Duration
    /// Percent of the packets that a node sends and that are lost.
    var loss: Double
}

/// Network namespaces with one interface each at a bridge in the namespace of this process.
///
/// Each namespace belongs to a process that does nothing and ends with this one, so that nothing is left over.
final class ClusterNetwork: Sendable {
    static let tools = [
        ("unshare", "util-linux"), ("nsenter", "util-linux"), ("setpriv", "util-linux"), ("ip", "iproute2"),
        ("tc", "iproute2"),
    ]

    /// The address of this process, where the upstream registry is.
    static let hubAddress = "10.98.0.1"

    /// What the kernel could not do of the shape, in a sentence; empty if all is as it was asked for.
    let notes: [String]
    private let holders: [ChildProcess]
    private let folder: TemporaryDirectory

    static func address(_ node: Int) -> String { "10.98.\(1 + node / 250).\(1 + node % 250)" }

    /// Makes the network.
    ///
    /// - Parameter nodes: how many, at most 5000.
    static func make(nodes: Int, shape: LinkShape) async throws -> ClusterNetwork {
        let ip = try Tool.find("ip", package: "iproute2")
        for arguments in [
            ["link", "add", "br0", "type", "bridge"], ["addr", "add", "\(hubAddress)/16", "dev", "br0"],
            ["link", "set", "br0", "up"],
        ] { _ = try Tool.run(ip, arguments) }
        let folder = try TemporaryDirectory()
        var holders: [ChildProcess] = []
        let own = try namespace("self")
        for node in 0..<nodes {
            let holder = try await ChildProcess.start(
                ["unshare", "--net", "--", "sleep", "infinity"], output: (folder.path, "holder\(node)"))
            // Until it has left our namespace, commands meant for it would be carried out in ours.
            _ = try await eventually("a network namespace", detail: { holder.errors }) { () -> Bool? in
                guard let other = try? namespace("\(holder.pid)") else { return nil }
                return other != own && Machine.file("/proc/\(holder.pid)/comm").hasPrefix("sleep") ? true : nil
            }
            _ = try Tool.run(
                ip, ["link", "add", "v\(node)", "type", "veth", "peer", "name", "eth0", "netns", "\(holder.pid)"])
            _ = try Tool.run(ip, ["link", "set", "v\(node)", "master", "br0", "up"])
            let commands = [
                "ip link set lo up", "ip link set eth0 up", "ip addr add \(address(node))/16 dev eth0",
            ]
            try await Command.check(wrapper(holder) + ["sh", "-c", commands.joined(separator: " && ")])
            holders.append(holder)
        }
        let notes = try await shapeLinks(holders, shape)
        return ClusterNetwork(holders, folder, notes)
    }

    private init(_ holders: [ChildProcess], _ folder: TemporaryDirectory, _ notes: [String]) {
        self.holders = holders
        self.folder = folder
        self.notes = notes
    }

    /// What to put before a program and its arguments to run it as a node.
    func wrapper(_ node: Int) -> [String] { Self.wrapper(holders[node]) }

    /// Bytes that each node has sent to anything but itself, with all headers and acknowledgements.
    func sentBytes() -> [Int] {
        var received: [Substring: Int] = [:]
        for line in Machine.file("/proc/self/net/dev").split(separator: "\n") {
            let parts = line.split(separator: ":")
            guard parts.count == 2, let bytes = parts[1].split(separator: " ").first.flatMap({ Int($0) }) else {
                continue
            }
            received[Substring(parts[0].trimmingCharacters(in: .whitespaces))] = bytes
        }
        return holders.indices.map { received["v\($0)"] ?? 0 }
    }

    func remove() async throws {
        for holder in holders {
            holder.send(SIGKILL)
            _ = try await holder.wait()
        }
        _ = try Tool.run(try Tool.find("ip", package: "iproute2"), ["link", "del", "br0"])
    }

    // MARK: Shape

    /// `netem` does everything, but not every kernel has it; a token bucket limits rates, and netfilter loses packets.
    private static func shapeLinks(_ holders: [ChildProcess], _ shape: LinkShape) async throws -> [String] {
        let hasNetem = await succeeds(wrapper(holders[0]) + ["tc", "qdisc", "add", "dev", "lo", "root", "netem"])
        if hasNetem { _ = await succeeds(wrapper(holders[0]) + ["tc", "qdisc", "del", "dev", "lo", "root"]) }
        var notes: [String] = []
        let wantsMore = shape.delay > .zero || shape.loss > 0
        for (node, holder) in holders.enumerated() {
            if hasNetem, wantsMore {
                let delay = "\((shape.delay / .milliseconds(1)).text(2))ms"
                var netem = ["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "limit", "10000", "delay", delay]
                if shape.loss > 0 { netem += ["loss", "\(shape.loss.text(3))%"] }
                if let rate = shape.rate { netem += ["rate", "\(rate * 8)bit"] }
                try await Command.check(wrapper(holder) + netem)
            } else if let rate = shape.rate {
                try await Command.check(wrapper(holder) + tokenBucket("eth0", rate))
            }
            if let rate = shape.rate { try await Command.check(tokenBucket("v\(node)", rate)) }
            if !hasNetem, shape.loss > 0 {
                let rule = [
                    "iptables", "-A", "OUTPUT", "-o", "eth0", "-m", "statistic", "--mode", "random", "--probability",
                    (shape.loss / 100).text(6), "-j", "DROP",
                ]
                if node == 0, !(await succeeds(wrapper(holder) + rule)) {
                    notes.append("this kernel has neither netem nor netfilter's statistic match: no loss")
                    break
                }
                if node > 0 { try await Command.check(wrapper(holder) + rule) }
            }
        }
        if !hasNetem, shape.delay > .zero {
            notes.append("this kernel has no netem: links have their rate, but no delay; only the upstream has one")
        }
        return notes
    }

    private static func tokenBucket(_ interface: String, _ rate: Int) -> [String] {
        // The bucket holds 4 ms, and at least one segment that the kernel hands over in one piece.
        let burst = max(rate / 250, 128 << 10)
        return [
            "tc", "qdisc", "add", "dev", interface, "root", "tbf", "rate", "\(rate * 8)bit", "burst", "\(burst)",
            "latency", "50ms",
        ]
    }

    private static func succeeds(_ command: [String]) async -> Bool { (try? await Command.check(command)) != nil }

    private static func wrapper(_ holder: ChildProcess) -> [String] {
        ["nsenter", "--net=/proc/\(holder.pid)/ns/net", "--"]
    }

    private static func namespace(_ process: String) throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/net")
    }
}
