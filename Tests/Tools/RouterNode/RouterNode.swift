import Foundation
import Logging
import PeerRouting

/// A node of a cluster for tests: a router in a process of its own, told what to do on standard input.
///
///     router-node [--seed BYTE] [--bootstrap ADDR]… LISTEN…
///
/// LISTEN and ADDR are multiaddresses; an ADDR needs no ID, as with bootstrapping by DNS. Lines of input:
///
///     advertise PREFIX COUNT    the keys PREFIX-0 … PREFIX-(COUNT-1)
///     find KEY                  all that provide it
///     findall PREFIX COUNT ID   looks each key up, one after the other, and counts those that ID is not found for
///     records | peers | quit
///
/// Each line of output is one JSON object.
@main struct RouterNode {
    struct Report: Encodable {
        var event: String
        var id: String?
        var addresses: [String]?
        var providers: [String]?
        var peers: [String]?
        var missing: Int?
        var own: Int?
        var kept: Int?
        var seconds: Double?
        /// Of each lookup until the first provider, in milliseconds.
        var median: Double?
        var p99: Double?
    }

    static func main() async throws {
        let start = ContinuousClock.now
        var identity = NodeIdentity()
        var bootstrap: [BootstrapCandidate] = []
        var listen: [Multiaddr] = []
        var arguments = CommandLine.arguments.dropFirst()
        while let argument = arguments.popFirst() {
            switch argument {
            case "--seed":
                guard let byte = arguments.popFirst().flatMap({ UInt8($0) }) else { fatalError("--seed BYTE") }
                identity = try NodeIdentity(seed: [UInt8](repeating: byte, count: 32))
            case "--bootstrap":
                bootstrap.append(BootstrapCandidate(try Multiaddr(parsing: arguments.popFirst() ?? "")))
            default:
                listen.append(try Multiaddr(parsing: argument))
            }
        }
        var configuration = KademliaRouterConfiguration(
            identity: identity, listenAddresses: listen, bootstrap: FixedList(nodes: bootstrap),
            logger: Logger(label: "node") { StreamLogHandler.standardError(label: $0) })
        if ProcessInfo.processInfo.environment["DEBUG"] != nil { configuration.logger.logLevel = .debug }
        configuration.advertiseLoopback = listen.contains { $0.ipAddress?.isLoopback ?? false }
        let router = KademliaRouter(configuration: configuration)
        try await router.start()
        say(
            Report(
                event: "listening", id: "\(router.peerID)",
                addresses: router.host.advertisedAddresses.map(\.description)))
        Task {
            while !router.isReady { try await Task.sleep(for: .milliseconds(2)) }
            say(Report(event: "ready", seconds: (ContinuousClock.now - start) / .seconds(1)))
        }
        for await line in input() {
            let words = line.split(separator: " ").map(String.init)
            guard let command = words.first, command != "quit" else { break }
            await obey(command, Array(words.dropFirst()), router)
        }
        await router.shutdown()
        say(Report(event: "stopped"))
    }

    private static func obey(_ command: String, _ words: [String], _ router: KademliaRouter) async {
        switch (command, words.count) {
        case ("advertise", 2):
            let keys = (0..<(Int(words[1]) ?? 0)).map { "\(words[0])-\($0)" }
            do {
                try await router.advertise(keys)
                say(Report(event: "advertised"))
            } catch {
                say(Report(event: "failed: \(error)"))
            }
        case ("find", 1):
            var found: [String] = []
            for await peer in router.providers(for: words[0], limit: 0) { found.append("\(peer.id)") }
            say(Report(event: "found", providers: found))
        case ("findall", 3):
            var missing = 0
            var times: [Double] = []
            for number in 0..<(Int(words[1]) ?? 0) {
                let began = ContinuousClock.now
                var isFound = false
                for await peer in router.providers(for: "\(words[0])-\(number)", limit: 1) where !isFound {
                    isFound = "\(peer.id)" == words[2]
                    times.append((ContinuousClock.now - began) / .milliseconds(1))
                }
                if !isFound { missing += 1 }
            }
            times.sort()
            say(
                Report(
                    event: "foundall", missing: missing, median: times.isEmpty ? nil : times[times.count / 2],
                    p99: times.isEmpty ? nil : times[times.count * 99 / 100]))
        case ("records", 0):
            let (own, kept) = await router.recordCounts()
            say(Report(event: "records", own: own, kept: kept))
        case ("peers", 0):
            say(Report(event: "peers", peers: await router.knownPeers().map { "\($0.id)" }))
        default:
            say(Report(event: "unknown command \(command)"))
        }
    }

    /// The lines of standard input, read on a thread of their own.
    private static func input() -> AsyncStream<String> {
        AsyncStream { continuation in
            Thread.detachNewThread {
                while let line = readLine() { continuation.yield(line) }
                continuation.finish()
            }
        }
    }

    private static func say(_ report: Report) {
        guard var data = try? JSONEncoder().encode(report) else { return }
        data.append(UInt8(ascii: "\n"))
        FileHandle.standardOutput.write(data)
    }
}

/// The nodes named on the command line.
private struct FixedList: BootstrapSource {
    var nodes: [BootstrapCandidate]

    func candidates() -> [BootstrapCandidate] { nodes }
}
