import Foundation
import MirrorServer

/// What the debug page shows, for a terminal.
struct NodeReport {
    /// Rows of a table.
    private static let rowLimit = 10

    let status: MirrorNode.Status
    let traffic: TrafficSnapshot

    /// The state and the figures in lines of text; what came from clients and peers is printable.
    func lines(on terminal: Terminal) -> [String] {
        var lines: [String] = []
        let id = status.localPeer?.id ?? "without peers"
        let state = status.isReady ? terminal.green("ready") : terminal.red("not ready: \(status.reason ?? "starting")")
        lines.append("\(terminal.bold("spegel")) \(id)  \(Self.printable(state, keepsColours: true))")
        lines.append(
            "up \(DebugText.duration(traffic.time - traffic.startedAt)), registry "
                + "\(status.registryAddresses.joined(separator: ", ")), \(status.openConnections) connections, "
                + "\(status.peers.count) peers, \(status.store?.images ?? 0) images, \(status.advertisedKeyCount) keys advertised"
        )
        lines.append("")
        var totals = Table([
            ("", .left), ("saved", .right), ("given", .right), ("taken", .right), ("found", .right),
            ("not found", .right),
        ])
        let hour = traffic.minutes.reduce(into: Traffic()) { $0 += $1.traffic }
        for (name, sum) in [("last hour", hour), ("today", traffic.today), ("in all", traffic.total)] {
            totals.add([name] + Self.figures(sum))
        }
        lines += totals.lines
        let reasons = traffic.total.misses.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        if !reasons.isEmpty {
            lines.append(
                "not found: " + reasons.map { "\($0.value) × \(DebugText.missReason($0.key))" }.joined(separator: ", "))
        }
        append("Transfers under way", transferTable, count: traffic.transferCount, to: &lines, on: terminal)
        append("Images", imageTable, count: traffic.images.count, to: &lines, on: terminal)
        append("Peers", peerTable, count: traffic.peers.count, to: &lines, on: terminal)
        return lines
    }

    private func append(
        _ title: String, _ table: Table, count: Int, to lines: inout [String], on terminal: Terminal
    ) {
        guard count > 0 else { return }
        lines += ["", terminal.bold(title)] + table.lines
        if count > Self.rowLimit { lines.append("and \(count - Self.rowLimit) more") }
    }

    private static func figures(_ traffic: Traffic) -> [String] {
        [
            Quantity.bytes(traffic.savedBytes), Quantity.bytes(traffic.servedBytes),
            Quantity.bytes(traffic.takenBytes), "\(traffic.hits)", "\(traffic.missCount)",
        ]
    }

    private var transferTable: Table {
        var table = Table([("image", .left), ("content", .left), ("received", .right), ("", .right), ("from", .left)])
        for transfer in traffic.transfers.prefix(Self.rowLimit) {
            let total = transfer.totalBytes
            table.add([
                Self.printable(transfer.image), Self.printable(String(transfer.reference.prefix(19))),
                Quantity.bytes(transfer.bytes),
                total.map { DebugText.share(Int(clamping: transfer.bytes), of: Int(clamping: $0)) } ?? "",
                transfer.peers.last.map { String($0.suffix(8)) } ?? "",
            ])
        }
        return table
    }

    private var imageTable: Table {
        var table = Table([
            ("image", .left), ("saved", .right), ("given", .right), ("taken", .right), ("found", .right),
            ("not found", .right), ("last used", .left),
        ])
        for image in traffic.images.prefix(Self.rowLimit) {
            let name = image.lastTag.map { "\(image.name):\($0)" } ?? image.name
            table.add(
                [Self.printable(name)] + Self.figures(image.traffic) + [DebugText.time(image.lastUsed)])
        }
        return table
    }

    private var peerTable: Table {
        var table = Table([
            ("peer", .left), ("address", .left), ("taken", .right), ("given", .right), ("completed", .right),
            ("failed", .right), ("last", .left),
        ])
        for peer in traffic.peers.prefix(Self.rowLimit) {
            table.add([
                peer.id.map { "…\($0.suffix(8))" } ?? "", Self.printable(peer.address ?? ""),
                Quantity.bytes(peer.takenBytes), Quantity.bytes(peer.givenBytes), "\(peer.completed)",
                "\(peer.failed)", Self.printable(peer.lastOutcome ?? ""),
            ])
        }
        return table
    }

    /// Text without control characters, which could steer the terminal.
    static func printable(_ text: String, keepsColours: Bool = false) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let isControl = scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
            if isControl, !(keepsColours && scalar.value == 0x1b) {
                result += "\u{FFFD}"
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
