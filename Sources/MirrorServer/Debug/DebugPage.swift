import Foundation

/// The debug page of one moment. The script asks for it again and takes over the parts that have changed, so that everything
/// is made, and escaped, here.
struct DebugPage: Sendable {
    /// Most rows of a table.
    static let rowLimit = 200
    /// How long a peer's last failure is shown, in seconds.
    static let failureAge = 300.0

    var status: MirrorNode.Status
    var traffic: TrafficSnapshot
    var requests: [RequestLog.Entry]
    var images: StoredImageList.Listing
    var measurement: MeasurementReport?
    var canMeasure: Bool
    var hasMetrics: Bool

    /// The header fields of the page and its parts: nothing from elsewhere, nothing inline, in no frame.
    static let securityFields: [(name: String, value: String)] = [
        ("Cache-Control", "no-store"),
        (
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                + "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
        ),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    ]

    var document: HTML {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>Spegel · \(status.isReady ? "ready" : "not ready")</title>
        <link rel="icon" href="icon.svg" type="image/svg+xml">
        <link rel="stylesheet" href="page.css">
        <script src="page.js" defer></script>
        </head>
        <body>
        <a class="skip" href="#main">Skip to content</a>
        <header class="top">
        <div class="brand"><img src="icon.svg" alt="" width="28" height="28"><h1>Spegel</h1></div>
        <div id="badge" data-live>\(badge)</div>
        <p id="live" class="live">Taken at \(Text.clock(traffic.time)) UTC<noscript>; reload for newer numbers</noscript></p>
        <nav aria-label="Links">\(links)</nav>
        </header>
        <main id="main">
        <section id="node" class="card" aria-labelledby="node-title"><h2 id="node-title">This node</h2>
        <div id="node-body" data-live>\(node)</div></section>
        <div id="findings-body" class="wide" data-live>\(findings)</div>
        <section id="saved" class="card" aria-labelledby="saved-title"><h2 id="saved-title">Saved from the upstream</h2>
        <div id="saved-body" data-live>\(saved)</div></section>
        <section id="hour" class="card wide" aria-labelledby="hour-title"><h2 id="hour-title">The last hour</h2>
        <div id="hour-body" class="plots" data-live>\(lastHour)</div></section>
        <section id="transfers" class="card wide" aria-labelledby="transfers-title">
        <h2 id="transfers-title">Transfers in flight</h2><div id="transfers-body" data-live>\(transfers)</div></section>
        \(measure)
        <section id="images" class="card wide" aria-labelledby="images-title"><h2 id="images-title">Images</h2>
        <div id="images-body" data-live>\(imageTable)</div></section>
        <section id="peers" class="card wide" aria-labelledby="peers-title"><h2 id="peers-title">Peers</h2>
        <div id="peers-body" data-live>\(peerTable)</div></section>
        <section id="requests" class="card wide" aria-labelledby="requests-title">
        <h2 id="requests-title">Last requests</h2><div id="requests-body" data-live>\(requestTable)</div></section>
        </main>
        <footer>Numbers as JSON: <a href="../status">status</a>, <a href="../traffic">traffic</a>,
        <a href="../requests">requests</a>, <a href="metadata">metadata</a>. Times are UTC.</footer>
        </body>
        </html>

        """
    }

    private var badge: HTML {
        status.isReady
            ? "<span class=\"badge good\">Ready</span>" : "<span class=\"badge bad\">Not ready</span>"
    }

    private var links: HTML {
        let metrics: HTML = hasMetrics ? "<a href=\"../../metrics\">Metrics</a> " : ""
        return "\(metrics)<a href=\"../status\">Status</a> <a href=\"../../readyz\">Readiness</a>"
    }

    // MARK: This node

    private var node: HTML {
        let reason: HTML = status.reason.map { "<p class=\"alert\" role=\"status\">\($0)</p>" } ?? ""
        let peer = status.localPeer
        return """
            \(reason)<dl>
            <dt>Identity</dt><dd class="id">\(peer?.id ?? "none: no router is configured")</dd>
            <dt>Addresses</dt><dd>\(Self.list(peer?.addresses ?? []))</dd>
            <dt>Registry</dt><dd>\(Self.list(status.registryAddresses))</dd>
            <dt>Store</dt><dd>\(status.store.map { "\(Text.count($0.images, "image"))\($0.isListed ? "" : ", not listed yet")" } ?? "not started")</dd>
            <dt>Advertised</dt><dd>\(Text.count(status.advertisedKeyCount, "key"))</dd>
            <dt>Connections</dt><dd>\(status.openConnections)</dd>
            <dt>Peers known</dt><dd>\(status.peers.count)</dd>
            <dt>Last hit</dt><dd>\(status.mirror?.lastSuccess.map { Text.ago($0, now: traffic.time) } ?? "never")</dd>
            </dl>
            """
    }

    /// What is wrong with the node's set-up; nothing at all when nothing is.
    private var findings: HTML {
        guard !status.findings.isEmpty else { return "" }
        let rows: [HTML] = status.findings.map { finding in
            let style = finding.result == "failure" ? "bad" : "warn"
            return """
                <li><span class="badge \(style)">\(finding.result)</span> <b>\(finding.check)</b> \(finding.evidence)\(finding.fix.map { "<pre>\($0)</pre>" as HTML } ?? "")</li>
                """
        }
        return """
            <section id="findings" class="card" aria-labelledby="findings-title"><h2 id="findings-title">This node is not set up for mirroring</h2>
            <p class="hint">The daemon looks every five minutes; <code>spegel doctor</code> looks now, and at more.</p><ul class="findings">\(rows)</ul></section>
            """
    }

    private static func list(_ items: [String]) -> String {
        items.isEmpty ? "–" : items.prefix(16).joined(separator: ", ")
    }

    // MARK: Savings

    private var saved: HTML {
        let requests = traffic.sinceStart.hits + traffic.sinceStart.missCount
        let share = requests == 0 ? "–" : "\(traffic.sinceStart.hits * 100 / requests) %"
        let registries = traffic.registries.filter { $0.traffic.savedBytes > 0 }.prefix(5)
        let rows: [HTML] = registries.map { registry in
            """
            <li><span class="name">\(registry.name.isEmpty ? "no registry" : registry.name)</span>
            \(Self.meter(registry.traffic.savedBytes, of: max(traffic.total.savedBytes, 1)))
            <span class="number">\(Text.bytes(registry.traffic.savedBytes))</span></li>
            """
        }
        let list: HTML =
            rows.isEmpty
            ? "<p class=\"none\">Nothing yet: the first image that a peer gives counts here.</p>"
            : "<ul class=\"bars\" aria-label=\"Saved by registry\">\(rows)</ul>"
        return """
            <div class="tiles">
            <div><strong>\(Text.bytes(traffic.today.savedBytes))</strong><span>today</span></div>
            <div><strong>\(Text.bytes(traffic.sinceStart.savedBytes))</strong><span>since the start, \(Text.ago(traffic.startedAt, now: traffic.time))</span></div>
            <div><strong>\(Text.bytes(traffic.total.savedBytes))</strong><span>since \(Text.day(traffic.countedSince))</span></div>
            <div><strong>\(share)</strong><span>hits since the start</span></div>
            </div>
            \(Self.plot("Saved today, by hour", traffic.hours.map { [Double($0.traffic.savedBytes)] }, classes: ["saved"], count: 24, total: Text.bytes(traffic.today.savedBytes), ends: ("00:00", "24:00")))
            \(list)
            """
    }

    private static func meter(_ value: Int64, of whole: Int64) -> HTML {
        let width = max(1, Int(Double(value) / Double(whole) * 100))
        return """
            <svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="4"/><rect class="saved" width="\(width)" height="4"/></svg>
            """
    }

    private var lastHour: HTML {
        let minutes = traffic.minutes
        var sum = Traffic()
        for minute in minutes { sum += minute.traffic }
        let ends = ("60 min ago", "now")
        let reasons = sum.misses.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { "\($0.value) × \(Text.missReason($0.key))" }.joined(separator: ", ")
        return """
            \(Self.plot("Requests", minutes.map { [Double($0.traffic.hits), Double($0.traffic.missCount)] }, classes: ["hit", "miss"], count: 60, total: "\(Text.count(sum.hits, "hit")), \(sum.missCount == 1 ? "1 miss" : "\(sum.missCount) misses")", ends: ends))
            \(Self.plot("Saved from the upstream", minutes.map { [Double($0.traffic.savedBytes)] }, classes: ["saved"], count: 60, total: Text.bytes(sum.savedBytes), ends: ends))
            \(Self.plot("Taken from peers", minutes.map { [Double($0.traffic.takenBytes)] }, classes: ["taken"], count: 60, total: Text.bytes(sum.takenBytes), ends: ends))
            \(Self.plot("Given to peers", minutes.map { [Double($0.traffic.servedBytes)] }, classes: ["given"], count: 60, total: Text.bytes(sum.servedBytes), ends: ends))
            <p class="reasons">\(reasons.isEmpty ? "No misses in the last hour." : "Misses: \(reasons).")</p>
            """
    }

    /// Bars, stacked where there are several values, scaled to the highest one.
    private static func plot(
        _ title: String, _ values: [[Double]], classes: [String], count: Int, total: String,
        ends: (from: String, to: String)
    ) -> HTML {
        let highest = max(values.map { $0.reduce(0, +) }.max() ?? 0, 1)
        let bars: [HTML] = values.prefix(count).enumerated().flatMap { index, stack in
            var top = 40
            return zip(stack, classes).compactMap { value, name -> HTML? in
                guard value > 0 else { return nil }
                let height = max(1, Int((value / highest * 38).rounded()))
                top = max(0, top - height)
                return "<rect class=\"\(name)\" x=\"\(index * 10 + 1)\" y=\"\(top)\" width=\"8\" height=\"\(height)\"/>"
            }
        }
        let keys: [HTML] =
            classes.count < 2
            ? [] : classes.map { "<span class=\"key \($0)\">\($0 == "hit" ? "hits" : "misses")</span>" }
        return """
            <figure><figcaption><span>\(title) \(keys)</span> <b>\(total)</b></figcaption>
            <svg class="plot" viewBox="0 0 \(count * 10) 40" preserveAspectRatio="none" role="img" aria-label="\(title), \(ends.from) to \(ends.to): \(total)"><rect class="base" y="39.5" width="\(count * 10)" height="0.5"/>\(bars)</svg>
            <div class="axis" aria-hidden="true"><span>\(ends.from)</span><span>\(ends.to)</span></div></figure>
            """
    }

    // MARK: Tables

    private static func table(
        _ label: String, _ headings: [(text: String, isNumber: Bool)], _ rows: [HTML], empty: String
    ) -> HTML {
        guard !rows.isEmpty else { return "<p class=\"none\">\(empty)</p>" }
        let heads: [HTML] = headings.map {
            "<th scope=\"col\"\($0.isNumber ? " class=\"number\"" as HTML : "")>\($0.text)</th>"
        }
        return """
            <div class="scroll" role="region" aria-label="\(label), table" tabindex="0"><table><thead><tr>\(heads)</tr></thead><tbody>\(rows)</tbody></table></div>
            """
    }

    private var transfers: HTML {
        let rows: [HTML] = traffic.transfers.map { transfer in
            let progress: HTML
            if let total = transfer.totalBytes, total > 0 {
                progress = """
                    <progress max="100" value="\(min(100, transfer.bytes * 100 / total))" aria-label="Progress of \(Text.short(transfer.reference))"></progress>
                    """
            } else {
                progress = "looking up"
            }
            return """
                <tr><th scope="row">\(transfer.image)<small>\(Text.short(transfer.reference))</small></th><td>\(progress)</td>
                <td class="number">\(Text.bytes(transfer.bytes)) of \(transfer.totalBytes.map(Text.bytes) ?? "?")</td>
                <td class="id">\(transfer.peers.last.map(Text.peer) ?? "–")</td><td class="number">\(transfer.clients)</td>
                <td class="number">\(Text.seconds(traffic.time - transfer.start))</td></tr>
                """
        }
        let more: HTML = traffic.transferCount > rows.count ? "<p>\(traffic.transferCount - rows.count) more</p>" : ""
        return """
            \(Self.table("Transfers", [("Content", false), ("Progress", false), ("Bytes", true), ("From", false), ("Clients", true), ("For", true)], rows, empty: "Nothing is being fetched from peers now."))\(more)\(coldStarts)
            """
    }

    /// The trees under way, as this node sees them; nothing at all when there are none.
    private var coldStarts: HTML {
        guard let all = status.coldStarts, !all.isEmpty else { return "" }
        let rows: [HTML] = all.map { content in
            let progress = content.size > 0 ? content.bytes * 100 / content.size : 0
            return """
                <tr><th scope="row"><small>\(Text.short(content.digest))</small></th>
                <td><progress max="100" value="\(progress)" aria-label="Arrived of \(Text.short(content.digest))"></progress></td>
                <td class="number">\(Text.bytes(content.bytes)) of \(Text.bytes(content.size))</td>
                <td class="id">\(content.parent.map(Text.peer) ?? "the upstream, for all")</td>
                <td class="number">\(content.servedPeers)</td><td class="number">\(Text.seconds(content.seconds))</td></tr>
                """
        }
        return """
            <h3>New content, fetched together</h3>\(Self.table("New content", [("Content", false), ("Progress", false), ("Bytes", true), ("From", false), ("Peers fed", true), ("For", true)], rows, empty: ""))
            """
    }

    private var imageTable: HTML {
        let exchanged = Dictionary(traffic.images.map { ($0.name, $0) }) { first, _ in first }
        let stored = Set(images.images.map(\.registry))
        func sources(_ image: TrafficSnapshot.Image?) -> HTML {
            let peers = (image?.takenFrom ?? [:]).sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            guard !peers.isEmpty else { return "–" }
            let items: [HTML] = peers.prefix(3).map {
                "<span class=\"source\"><span class=\"id\">\(Text.peer($0.key))</span> \(Text.bytes($0.value))</span> "
            }
            return "\(items)"
        }
        var rows: [HTML] = images.images.map { image in
            let used = exchanged[image.registry]
            return """
                <tr><th scope="row">\(image.name)<small>\(Text.short(image.digest))</small></th><td>stored</td>
                <td class="number">\(image.size.map(Text.bytes) ?? "–")</td><td>\(sources(used))</td>
                <td class="number">\(Text.bytes(used?.traffic.savedBytes ?? 0))</td><td class="number">\(Text.bytes(used?.traffic.servedBytes ?? 0))</td></tr>
                """
        }
        for image in traffic.images where !stored.contains(image.name) && rows.count < Self.rowLimit {
            rows.append(
                """
                <tr><th scope="row">\(image.name)\(image.lastTag.map { ":\($0)" } ?? "")</th><td>passed through</td>
                <td class="number">–</td><td>\(sources(image))</td>
                <td class="number">\(Text.bytes(image.traffic.savedBytes))</td><td class="number">\(Text.bytes(image.traffic.servedBytes))</td></tr>
                """)
        }
        let failure: HTML = images.failure.map { "<p class=\"alert\">The store cannot be listed: \($0)</p>" } ?? ""
        let more: HTML =
            images.count > images.images.count ? "<p>\(images.count - images.images.count) more in the store</p>" : ""
        return """
            \(failure)\(Self.table("Images", [("Image", false), ("State", false), ("Size", true), ("Taken from", false), ("Saved", true), ("Given", true)], rows, empty: "The store has no images."))\(more)
            """
    }

    private var peerTable: HTML {
        let counted = Dictionary(traffic.peers.compactMap { peer in peer.id.map { ($0, peer) } }) { first, _ in first }
        let known = Dictionary(status.peers.map { ($0.id, $0) }) { first, _ in first }
        func row(_ id: String?, _ addresses: [String], _ peer: TrafficSnapshot.Peer?) -> HTML {
            let info = id.flatMap { known[$0] }
            let state: HTML
            // By then no failure counts any more.
            let isRecent = peer.map { traffic.time - $0.lastUsed < Self.failureAge } ?? false
            switch isRecent ? peer?.lastOutcome : nil {
            case nil, "completed":
                if let info {
                    state = "<span class=\"badge good\">\(info.isConnected == true ? "connected" : "known")</span>"
                } else {
                    state = "<span class=\"badge\">asked only</span>"
                }
            case "absent": state = "<span class=\"badge\">had it not</span>"
            case "busy": state = "<span class=\"badge warn\">busy</span>"
            case .some(let failure): state = "<span class=\"badge bad\">\(failure)</span>"
            }
            return """
                <tr><th scope="row" class="id" title="\(id ?? "")">\(id.map(Text.peer) ?? "unidentified")</th><td>\(Self.list(Array(addresses.prefix(3))))</td>
                <td>\(state)</td><td class="number">\(info?.roundTripMilliseconds.map { Text.seconds($0 / 1000) } ?? "–")</td><td>\(info?.agent ?? "–")</td>
                <td class="number">\(Text.bytes(peer?.takenBytes ?? 0))</td><td class="number">\(Text.bytes(peer?.givenBytes ?? 0))</td>
                <td class="number">\(peer?.completed ?? 0)</td><td class="number">\(peer?.failed ?? 0)</td>
                <td class="number">\(peer.map { Text.ago($0.lastUsed, now: traffic.time) } ?? "–")</td></tr>
                """
        }
        var rows = traffic.peers.prefix(Self.rowLimit).map { row($0.id, $0.address.map { [$0] } ?? [], $0) }
        for peer in status.peers where counted[peer.id] == nil && rows.count < Self.rowLimit {
            rows.append(row(peer.id, peer.addresses, nil))
        }
        return Self.table(
            "Peers",
            [
                ("Peer", false), ("Address", false), ("State", false), ("Round trip", true), ("Version", false),
                ("It gave", true), ("It took", true),
                ("Completed", true), ("Failed", true), ("Last used", true),
            ], rows, empty: "No other node is known. A single node has no peers yet.")
    }

    private var requestTable: HTML {
        let rows: [HTML] = requests.reversed().map { request in
            let style =
                request.outcome == "served"
                ? "good" : request.outcome == "failed" || request.outcome == "broken off" ? "bad" : ""
            return """
                <tr><td class="number">\(Text.clock(request.time))</td><td>\(request.method)</td><th scope="row" class="target">\(request.target)</th>
                <td><span class="badge \(style)">\(request.outcome)</span> <small>\(Text.reason(request))</small></td>
                <td class="number">\(Text.bytes(request.bytes))</td><td class="number">\(Text.seconds(request.milliseconds / 1000))</td><td>\(request.client ?? "–")</td></tr>
                """
        }
        return Self.table(
            "Last requests",
            [
                ("Time", true), ("Method", false), ("Target", false), ("Outcome", false), ("Bytes", true),
                ("Took", true), ("Client", false),
            ], rows, empty: "No request since the start.")
    }

    // MARK: Measurement

    private var measure: HTML {
        guard canMeasure else { return "" }
        return """
            <section id="measure" class="card wide" aria-labelledby="measure-title"><h2 id="measure-title">Measure a pull</h2>
            <form id="measure-form" class="measure"><label for="image">Image</label>
            <input id="image" name="image" required maxlength="\(PullMeasurement.nameLimit)" placeholder="docker.io/library/nginx:1.27" autocomplete="off" autocapitalize="none" spellcheck="false">
            <button type="submit" id="measure-start" disabled>Measure</button><button type="button" id="measure-cancel" disabled>Cancel</button></form>
            <p class="hint">Looks the image up and fetches it from the peers, verifies it and throws it away: at most \(Text.bytes(PullMeasurement.Limits().bytes)) and \(PullMeasurement.Limits().time.components.seconds) s.<noscript> Needs scripts.</noscript></p>
            <p id="measure-status" role="status" class="hint"></p>
            <div id="measure-body" data-live data-phase="\(measurement?.phase.rawValue ?? "")">\(measurementResult)</div></section>
            """
    }

    private var measurementResult: HTML {
        guard let report = measurement else { return "<p class=\"none\">No measurement yet.</p>" }
        let whole = max(report.milliseconds, report.pieces.map { $0.start + $0.milliseconds }.max() ?? 0, 1)
        let rows: [HTML] = report.pieces.map { piece in
            let from = Int(piece.start / whole * 1000)
            let wait = max(1, Int((piece.firstByteMilliseconds ?? piece.milliseconds) / whole * 1000))
            let length = max(2, Int(piece.milliseconds / whole * 1000))
            let state: HTML
            if let failure = piece.failure {
                state = "<span class=\"badge bad\">\(failure)</span>"
            } else if piece.isVerified {
                state = "<span class=\"badge good\">verified</span>"
            } else {
                state =
                    report.phase == .running
                    ? "<span class=\"badge\">running</span>" : "<span class=\"badge\">not verified</span>"
            }
            return """
                <tr><th scope="row">\(piece.kind)<small>\(Text.short(piece.reference))</small></th>
                <td><svg class="fall" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="from \(Text.seconds(piece.start / 1000)), for \(Text.seconds(piece.milliseconds / 1000))"><rect class="track" width="1000" height="10"/><rect class="taken" x="\(from)" width="\(length)" height="10"/><rect class="wait" x="\(from)" width="\(min(wait, length))" height="10"/></svg></td>
                <td class="id">\(piece.peers.isEmpty ? "–" : piece.peers.map(Text.peer).joined(separator: ", "))</td>
                <td class="number">\(Text.bytes(piece.bytes))</td><td class="number">\(Text.seconds(piece.milliseconds / 1000))</td><td>\(state)</td></tr>
                """
        }
        let providers: [HTML] = report.providers.map {
            "<li><span class=\"id\">\(Text.peer($0.id))</span> \(Self.list($0.addresses)) <b>\(Text.seconds($0.milliseconds / 1000))</b></li>"
        }
        let style = report.phase == .completed ? "good" : report.phase == .failed ? "bad" : ""
        return """
            <p><span class="badge \(style)">\(report.phase.rawValue)</span> <b>\(report.image)</b>, \(Text.bytes(report.bytes)) in \(Text.seconds(report.milliseconds / 1000))</p>
            \(report.failure.map { "<p class=\"alert\">\($0)</p>" as HTML } ?? "")
            <h3>Providers</h3>\(providers.isEmpty ? "<p class=\"none\">None was found.</p>" as HTML : "<ul class=\"providers\">\(providers)</ul>")
            <h3>Pieces</h3>\(Self.table("Pieces", [("Piece", false), ("When", false), ("From", false), ("Bytes", true), ("Took", true), ("Verification", false)], rows, empty: "None yet."))
            """
    }
}

/// Texts of numbers for the debug page.
private enum Text {
    static func bytes(_ count: Int64) -> String {
        guard count >= 1024 else { return "\(count) B" }
        var value = Double(count) / 1024
        var units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][...]
        while value >= 999.5, units.count > 1 {
            value /= 1024
            units.removeFirst()
        }
        let tenths = Int((value * 10).rounded())
        return value < 99.95
            ? "\(tenths / 10).\(tenths % 10) \(units.first ?? "")" : "\(Int(value.rounded())) \(units.first ?? "")"
    }

    static func count(_ count: Int, _ noun: String) -> String { count == 1 ? "1 \(noun)" : "\(count) \(noun)s" }

    static func seconds(_ seconds: Double) -> String {
        let seconds = min(max(seconds, 0), 1e9)
        if seconds < 0.01 { return "\(Double(Int(seconds * 10_000)) / 10) ms" }
        if seconds < 1 { return "\(Int(seconds * 1000)) ms" }
        return seconds < 60 ? "\(Double(Int(seconds * 10)) / 10) s" : "\(Int(seconds) / 60) min"
    }

    static func ago(_ time: Double, now: Double) -> String {
        let seconds = Int(min(max(now - time, 0), 1e12))
        switch seconds {
        case ..<60: return "\(seconds) s ago"
        case ..<3600: return "\(seconds / 60) min ago"
        case ..<86_400: return "\(seconds / 3600) h ago"
        default: return "\(seconds / 86_400) d ago"
        }
    }

    static func clock(_ time: Double) -> String {
        let second = Int(min(max(time, 0), 1e12)) % 86_400
        return [second / 3600, second / 60 % 60, second % 60].map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(
            separator: ":")
    }

    static func day(_ time: Double) -> String {
        String(Date(timeIntervalSince1970: time).ISO8601Format().prefix(10))
    }

    /// The end of a peer ID, in which IDs differ.
    static func peer(_ id: String) -> String { id.count > 14 ? "…\(id.suffix(10))" : id }

    /// A digest's first digits; a tag as it is.
    static func short(_ reference: String) -> String {
        reference.hasPrefix("sha256:") || reference.hasPrefix("sha512:") ? "\(reference.prefix(19))…" : reference
    }

    static func reason(_ request: RequestLog.Entry) -> String {
        switch (request.outcome, request.status) {
        case ("served", _): request.reason == RequestLog.peerReason ? "from a peer" : ""
        case ("broken off", _): "the response did not reach its end"
        case (_, 404):
            switch request.reason {
            case nil: "no such path"
            case RequestLog.localReason: "not in the store, and no peer is asked"
            case .some(let reason): missReason(reason)
            }
        case (_, 401): "credentials are missing or wrong"
        case (_, 403): "a filter forbids it"
        case (_, 429): "too many transfers"
        case (_, .some(let status)): "\(status)"
        default: ""
        }
    }

    static func missReason(_ reason: String) -> String {
        switch MissReason(rawValue: reason) {
        case .absent: "no peer has it"
        case .unreachable: "peers unreachable"
        case .timeout: "timed out"
        case .refused: "refused by peers"
        case .filtered: "filtered"
        case .mismatch: "not verified"
        case .interrupted: "interrupted"
        case nil: reason
        }
    }
}
