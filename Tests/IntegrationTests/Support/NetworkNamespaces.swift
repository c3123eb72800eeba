import Foundation
import TestSupport

/// A network of its own for a test: a namespace with a bridge, and namespaces with one interface each at that bridge.
///
/// Each namespace belongs to a process that does nothing and ends with the test run, so nothing is ever left over, and
/// nothing is changed in the machine's own network. Needs root.
final class NetworkNamespaces: Sendable {
    private let hub: ChildProcess
    private let holders: [ChildProcess]

    /// Makes the network.
    ///
    /// - Parameter addresses: For each namespace the addresses of its interface, with prefix lengths.
    init(addresses: [[String]]) async throws {
        hub = try await Self.hold()
        try await Self.run(hub, "ip link set lo up && ip link add br0 type bridge && ip link set br0 up")
        var holders: [ChildProcess] = []
        for (number, addresses) in addresses.enumerated() {
            let holder = try await Self.hold()
            try await Self.run(
                hub,
                "ip link add v\(number) type veth peer name eth0 netns \(holder.pid) && "
                    + "ip link set v\(number) master br0 up")
            let commands =
                ["ip link set lo up", "ip link set eth0 up"]
                // The addresses are usable at once: nobody else can have them here.
                + addresses.map { "ip addr add \($0) dev eth0" + ($0.contains(":") ? " nodad" : "") }
            try await Self.run(holder, commands.joined(separator: " && "))
            holders.append(holder)
        }
        self.holders = holders
    }

    /// What to put in front of a program and its arguments to run it in a namespace.
    func wrapper(_ number: Int) -> [String] { Self.wrapper(holders[number]) }

    /// Takes everything down, and waits until it is.
    func remove() async throws {
        for holder in holders + [hub] {
            holder.send(SIGKILL)
            _ = try await holder.wait()
        }
    }

    private static func wrapper(_ holder: ChildProcess) -> [String] {
        ["nsenter", "--net=/proc/\(holder.pid)/ns/net", "--"]
    }

    private static func hold() async throws -> ChildProcess {
        let holder = try await ChildProcess.start(["unshare", "--net", "--", "sleep", "infinity"])
        let ours = try namespace("self")
        // Until it has left our namespace, commands meant for it would be carried out in ours.
        return try await holder.until("a network namespace (which needs root)") { () -> ChildProcess? in
            let isAway = try namespace("\(holder.pid)") != ours
            return isAway ? holder : nil
        }
    }

    private static func namespace(_ process: String) throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/net")
    }

    private static func run(_ holder: ChildProcess, _ script: String) async throws {
        try await Command.check(wrapper(holder) + ["sh", "-c", script])
    }
}
