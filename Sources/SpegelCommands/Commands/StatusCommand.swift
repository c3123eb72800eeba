import ArgumentParser
import AsyncHTTPClient
import Foundation
import MirrorServer
import NIOCore
import NIOHTTP1
import PeerRouting

/// `spegel status`: what the debug page shows, for a terminal.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows the state of the daemon on this machine: readiness, savings, transfers, images and peers.",
        discussion: "Exit status 1 when the daemon is not ready or does not answer.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address of the daemon's metrics.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(
        help: "Whether to print JSON, as /debug/status and /debug/traffic have it.", transform: ScalarOption.boolean)
    var json = false

    func run() async throws {
        let report = try await NodeReport.fetch(from: metricsAddr)
        if json {
            print(try report.json)
        } else {
            let terminal = Terminal.standardOutput
            for line in report.lines(on: terminal) { terminal.line(line) }
        }
        guard report.status.isReady else { throw ExitCode.failure }
    }
}

/// `spegel top`: refreshes what `spegel status` shows.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "Shows what 'spegel status' shows, and refreshes it until it is interrupted.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "Address of the daemon's metrics.", transform: ListenAddressOption.parse)
    var metricsAddr = ListenAddress(host: nil, port: 9090)

    @Option(help: "How long to wait between two looks.", transform: DurationOption.positive)
    var interval: Duration = .seconds(2)

    func run() async throws {
        let terminal = Terminal.standardOutput
        while true {
            var lines: [String]
            do {
                lines = try await NodeReport.fetch(from: metricsAddr).lines(on: terminal)
            } catch let error as CommandFailure {
                // A daemon that restarts is waited for; without a terminal there is no one to see it come back.
                guard terminal.isInteractive else { throw error }
                lines = ["\(error)"]
            }
            // Home, the lines each with the rest of the old one erased, then everything below: no flicker.
            let (home, end, below) = ("\u{1b}[H", "\u{1b}[K", "\u{1b}[J")
            if terminal.isInteractive {
                terminal.write(home + lines.map { $0 + end + "\n" }.joined() + below)
            } else {
                terminal.write(lines.map { $0 + "\n" }.joined() + "\n")
            }
            try await Task.sleep(for: interval)
        }
    }
}

/// The state and the traffic of a daemon.
package struct NodeReport: Codable, Hashable, Sendable {
    /// Rows of each table.
    private static let rows = 10
    /// Most bytes of a document: 10,000 keys and 512 images with long names stay below.
    private static let documentLimit = 16 << 20

    package var status: MirrorNode.Status
    package var traffic: TrafficSnapshot

    /// Asks the daemon whose metrics are at an address.
    ///
    /// - Throws: ``CommandFailure`` saying what to do about it.
    package static func fetch(from address: ListenAddress) async throws -> NodeReport {
        let base = "http://\(ListenAddress(host: address.host ?? "127.0.0.1", port: address.port))/debug/"
        return NodeReport(status: try await get(base + "status"), traffic: try await get(base + "traffic"))
    }

    private static func get<Document: Decodable>(_ url: String) async throws -> Document {
        do {
            let response = try await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(10))
            guard response.status == .ok else {
                throw CommandFailure("status \(response.status.code); is '--debug-web-enabled' false there?")
            }
            let body = try await response.body.collect(upTo: documentLimit)
            return try JSONDecoder().decode(Document.self, from: Data(body.readableBytesView))
        } catch {
            throw CommandFailure("\(url): \(error); give the address of a running daemon with '--metrics-addr'")
        }
    }

    /// Both documents as one JSON object.
    var json: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }

    /// The report for a person. Names that come from other nodes and clients are shown without control characters.
    func lines(on terminal: Terminal) -> [String] {
        var lines = summary(on: terminal)
        func section(_ title: String, _ table: Table, count: Int) {
            guard count > 0 else { return }
            lines += ["", terminal.bold(title)] + table.lines
            if count > Self.rows { lines.append("… \(count - Self.rows) more") }
        }
        var transfers = Table([
            ("CONTENT", .left), ("REFERENCE", .left), ("BYTES", .right), ("OF", .right), ("FROM", .left),
        ])
        for transfer in traffic.transfers.prefix(Self.rows) {
            transfers.add([
                Self.plain(transfer.image), Self.short(transfer.reference), Quantity.bytes(transfer.bytes),
                transfer.totalBytes.map(Quantity.bytes) ?? "?", Self.short(transfer.peers.last ?? "-"),
            ])
        }
        section("Transfers in flight", transfers, count: traffic.transferCount)
        var images = Table([
            ("IMAGE", .left), ("SAVED", .right), ("TAKEN", .right), ("GIVEN", .right), ("HITS", .right),
        ])
        for image in traffic.images.prefix(Self.rows) {
            images.add([
                Self.plain(image.name), Quantity.bytes(image.traffic.savedBytes),
                Quantity.bytes(image.traffic.takenBytes), Quantity.bytes(image.traffic.servedBytes),
                "\(image.traffic.hits)",
            ])
        }
        section("Images", images, count: traffic.images.count)
        var peers = Table([
            ("PEER", .left), ("ADDRESS", .left), ("GAVE", .right), ("TOOK", .right), ("FAILED", .right),
            ("LAST OUTCOME", .left), ("ROUND TRIP", .right), ("VERSION", .left),
        ])
        let known = Dictionary(status.peers.map { ($0.id, $0) }) { first, _ in first }
        for peer in traffic.peers.prefix(Self.rows) {
            let info = peer.id.flatMap { known[$0] }
            peers.add([
                Self.plain(peer.id ?? "-"), Self.plain(peer.address ?? "-"), Quantity.bytes(peer.takenBytes),
                Quantity.bytes(peer.givenBytes), "\(peer.failed)", Self.plain(peer.lastOutcome ?? "-"),
                info?.roundTripMilliseconds.map { Quantity.time(.milliseconds(1) * $0) } ?? "-",
                Self.plain(info?.agent ?? "-"),
            ])
        }
        section("Peers", peers, count: traffic.peers.count)
        return lines
    }

    private func summary(on terminal: Terminal) -> [String] {
        let readiness =
            status.isReady ? terminal.green("ready") : terminal.red("not ready: \(Self.plain(status.reason ?? "?"))")
        let misses = traffic.sinceStart.misses.filter { $0.value > 0 }.sorted { $0.key < $1.key }
            .map { "\($0.value) \(Self.plain($0.key))" }.joined(separator: ", ")
        var lines: [String] = [
            "\(terminal.bold("Spegel")) \(readiness)",
            "identity   \(Self.plain(status.localPeer?.id ?? "none"))",
            "registry   \(Self.plain(status.registryAddresses.joined(separator: ", ")))",
            "store      \(status.store.map { "\($0.images) images" } ?? "-"), \(status.advertisedKeyCount) keys advertised",
            "peers      \(status.peers.count) known",
            "saved      \(Quantity.bytes(traffic.today.savedBytes)) today, "
                + "\(Quantity.bytes(traffic.sinceStart.savedBytes)) since the start, "
                + "\(Quantity.bytes(traffic.total.savedBytes)) in all",
            "exchanged  \(Quantity.bytes(traffic.sinceStart.takenBytes)) taken, "
                + "\(Quantity.bytes(traffic.sinceStart.servedBytes)) given",
            "requests   \(traffic.sinceStart.hits) hits, \(traffic.sinceStart.missCount) misses"
                + (misses.isEmpty ? "" : " (\(misses))"),
        ]
        for finding in status.findings {
            let result = finding.result == "failure" ? terminal.red("failure") : "warning"
            lines.append("\(result)    \(Self.plain(finding.check)): \(Self.plain(finding.evidence))")
            if let fix = finding.fix { lines.append("           \(Self.plain(fix))") }
        }
        return lines
    }

    /// At most 120 characters without control characters, which could redraw the terminal.
    private static func plain(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.filter {
                    $0.properties.generalCategory != .control && $0.properties.generalCategory != .format
                }
            ).prefix(120))
    }

    private static func short(_ text: String) -> String {
        let text = plain(text)
        return text.count > 20 ? String(text.prefix(19)) + "…" : text
    }
}
