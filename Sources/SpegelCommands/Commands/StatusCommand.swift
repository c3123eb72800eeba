import ArgumentParser
import AsyncHTTPClient
import Foundation
import MirrorServer
import NIOCore
import NIOHTTP1

/// `spegel status`: what the debug page shows, once.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Shows the state of a running daemon and what it exchanged with its peers.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address of the daemon's metrics and debug pages.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "text or json.", transform: VersionCommand.Format.parse)
    var format: VersionCommand.Format = .text

    func run() async throws {
        let client = StatusClient(address: metricsAddr)
        switch format {
        case .text:
            let terminal = Terminal.standardOutput
            for line in try await client.report().lines(on: terminal) { terminal.line(line) }
        case .json:
            let (status, traffic) = (try await client.get("/debug/status"), try await client.get("/debug/traffic"))
            Terminal.standardOutput.line(
                #"{"status":\#(String(buffer: status)),"traffic":\#(String(buffer: traffic))}"#)
        }
    }
}

/// `spegel top`: the same, again and again.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract:
            "Shows the state of a running daemon and what it exchanges with its peers, as it changes, until Ctrl-C.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address of the daemon's metrics and debug pages.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "Time between two looks.", transform: DurationOption.positive)
    var interval: Duration = .seconds(2)

    func run() async throws {
        let client = StatusClient(address: metricsAddr)
        let terminal = Terminal.standardOutput
        while true {
            let lines: [String]
            do {
                lines = try await client.report().lines(on: terminal)
            } catch let failure as CommandFailure {
                // A daemon that restarts is waited for; one that was never there is an error at once elsewhere.
                guard terminal.isInteractive else { throw failure }
                lines = [terminal.red("\(failure)")]
            }
            // Drawn over, line by line, so that nothing flickers; then the rest of the screen is cleared.
            let screen =
                terminal.isInteractive
                ? "\u{1b}[H" + lines.map { "\($0)\u{1b}[K\n" }.joined() + "\u{1b}[J"
                : lines.joined(separator: "\n") + "\n\n"
            terminal.write(screen)
            try await Task.sleep(for: interval)
        }
    }
}

/// Asks a daemon's debug pages.
struct StatusClient {
    private static let timeout: TimeAmount = .seconds(10)

    let address: ListenAddress

    /// The state and the figures of the daemon.
    ///
    /// - Throws: ``CommandFailure`` saying what to do about it.
    func report() async throws -> NodeReport {
        NodeReport(status: try await document("/debug/status"), traffic: try await document("/debug/traffic"))
    }

    private func document<Document: Decodable>(_ path: String) async throws -> Document {
        let body = try await get(path)
        do {
            return try JSONDecoder().decode(Document.self, from: Data(body.readableBytesView))
        } catch {
            throw CommandFailure("\(path) of \(address): not the answer of a daemon of this version: \(error)")
        }
    }

    /// The body of a page.
    func get(_ path: String) async throws -> ByteBuffer {
        let host = address.host ?? "127.0.0.1"
        let url = "http://\(ListenAddress(host: host, port: address.port))\(path)"
        do {
            let response = try await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: Self.timeout)
            guard response.status == .ok else {
                throw CommandFailure("\(url): status \(response.status.code); is '--debug-web-enabled' false there?")
            }
            return try await response.body.collect(upTo: 8 << 20)
        } catch let failure as CommandFailure {
            throw failure
        } catch {
            throw CommandFailure("\(url): \(error); give the address of a running daemon with '--metrics-addr'")
        }
    }
}
