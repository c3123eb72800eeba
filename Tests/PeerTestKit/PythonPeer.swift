import Foundation
import Libp2p

/// The independent libp2p implementation of the tests: `Tests/Interop/py_libp2p_peer.py` in a process of its own.
///
/// `scripts/python-peer` makes its environment; when that fails, so does the test.
package final class PythonPeer: Sendable {
    /// One line of the program's output.
    package struct Event: Decodable, Sendable {
        package struct Provider: Decodable, Sendable {
            package let id: String
            package let addrs: [String]
        }

        package let event: String
        package let id, peer, key, multihash, target, step, error: String?
        package let addrs, protocols, peers, connected: [String]?
        package let added, ok: Bool?
        package let providers: [Provider]?
        package let records: [String: [String]]?
        package let routingTable: [String]?

        package enum CodingKeys: String, CodingKey {
            case event, id, peer, key, multihash, target, step, error, addrs, protocols, peers, connected, added, ok
            case providers, records
            case routingTable = "routing_table"
        }
    }

    private let process: PipedProcess

    private static let interpreter = FetchedProgram.path(from: "scripts/python-peer")

    /// Starts the program; arguments as in its own help.
    package static func start(_ arguments: [String]) async throws -> PythonPeer {
        let script = FetchedProgram.root.appendingPathComponent("Tests/Interop/py_libp2p_peer.py").path
        return PythonPeer(
            process: try await PipedProcess.start([try await interpreter.value, script] + arguments))
    }

    private init(process: PipedProcess) {
        self.process = process
    }

    /// Starts a DHT server.
    ///
    /// - Returns: The peer with its ID and addresses.
    package static func serving(
        _ options: [String] = [], command: [String] = ["serve"]
    ) async throws -> (peer: PythonPeer, id: PeerID, addresses: [Multiaddr]) {
        let peer = try await start(options + command)
        let listening = try await peer.event("listening")
        guard let id = listening.id, let addresses = listening.addrs else {
            throw HostError.badAnswer("listening without ID and addresses")
        }
        return (peer, try PeerID(parsing: id), try addresses.map { try Multiaddr(parsing: $0) })
    }

    /// The next event of a kind; those before it are dropped. An `error` event throws unless it is what is wanted.
    package func event(_ name: String) async throws -> Event {
        while let line = await process.lines.next() {
            guard let event = try? JSONDecoder().decode(Event.self, from: Data(line.utf8)) else { continue }
            if event.event == name { return event }
            if event.event == "error" {
                throw HostError.badAnswer("\(event.step ?? ""): \(event.error ?? "")")
            }
        }
        throw HostError.connectionClosed("the Python peer ended, or was given up, before it said \(name)")
    }

    /// A line for the program, such as `provide KEY` or `quit`.
    package func send(_ line: String) { process.write(line: line) }

    /// Sends a command and returns the event that answers it.
    package func ask(_ line: String, _ event: String) async throws -> Event {
        send(line)
        return try await self.event(event)
    }

    /// The exit status.
    package func wait() async throws -> Int32 { try await process.wait() }

    /// Ends it and waits.
    package func stop() async { await process.stop() }
}

/// Runs the body with a serving Python peer, which is stopped whatever happens.
package func withPythonPeer(
    _ options: [String] = [], body: (PythonPeer, PeerID, [Multiaddr]) async throws -> Void
) async throws {
    let (peer, id, addresses) = try await PythonPeer.serving(options)
    do {
        try await body(peer, id, addresses)
    } catch {
        await peer.stop()
        throw error
    }
    await peer.stop()
}
