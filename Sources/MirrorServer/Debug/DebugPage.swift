import HTTPServer
import NIOCore

/// The debug web page of a node at `/debug/web/`: what it is, what it saved, from whom it takes and to whom it gives.
///
/// One HTML document with a style sheet and a script of the same server, nothing from elsewhere. The server makes all of the
/// markup, so that the page is complete with scripts off; the script fetches the same markup again every few seconds and
/// puts it in place. Everything shown is escaped (``HTML``) and limited (``TrafficSnapshot``, ``RequestLog``), and nothing
/// can be changed through it.
struct DebugPage: Sendable {
    /// Rows of the longest tables; what is beyond is in the JSON documents.
    static let rowLimit = 100

    let status: MirrorNode.Status
    let traffic: TrafficSnapshot
    /// Oldest first.
    let requests: [RequestLog.Entry]

    // MARK: Document

    /// The whole document.
    var document: HTML {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>\(status.isReady ? "Ready" : "Not ready") · Spegel \(shortID)</title>
        <link rel="icon" href="icon.svg" type="image/svg+xml">
        <link rel="stylesheet" href="page.css">
        <script src="page.js" defer></script>
        </head>
        <body>
        <a class="skip" href="#content">Skip to the content</a>
        <div id="live">
        \(content)
        </div>
        <footer>
        <p>Times are UTC. <span id="freshness">This page is as of \(DebugText.time(traffic.time)).</span></p>
        </footer>
        </body>
        </html>

        """
    }

    private var shortID: String { String((status.localPeer?.id ?? "without peers").suffix(8)) }

    /// What the script replaces.
    var content: HTML {
        """
        <header>
        <div class="title"><h1>Spegel</h1><code class="id">\(status.localPeer?.id ?? "serves without peers")</code></div>
        \(readiness)
        <nav aria-label="Documents"><a href="#node">Node</a> <a href="#images">Images</a> <a href="#peers">Peers</a> \
        <a href="#requests">Requests</a> <a href="../../metrics">Metrics</a> <a href="../status">Status (JSON)</a> \
        <a href="../traffic">Traffic (JSON)</a></nav>
        </header>
        <main id="content">
        \(tiles)
        \(hour)
        \(transfers)
        \(images)
        \(peers)
        \(requestTable)
        \(node)
        </main>
        """
    }

    private var readiness: HTML {
        status.isReady
            ? #"<p class="badge good" role="status">Ready</p>"#
            : #"<p class="badge bad" role="status">Not ready: \#(status.reason ?? "starting")</p>"#
    }

    // MARK: Figures

    private var tiles: HTML {
        let last = traffic.minutes.reduce(into: Traffic()) { $0 += $1.traffic }
        let asked = last.hits + last.missCount
        let uptime = DebugText.duration(traffic.time - traffic.startedAt)
        let counted = DebugText.duration(traffic.time - traffic.countedSince)
        return """
            <section class="tiles" aria-label="Summary">
            \(tile("Saved today", DebugText.bytes(traffic.today.savedBytes), "\(traffic.today.hits) requests answered by peers"))
            \(tile("Saved in all", DebugText.bytes(traffic.total.savedBytes), "counted for \(counted)"))
            \(tile("Given to peers", DebugText.bytes(traffic.total.servedBytes), "today \(DebugText.bytes(traffic.today.servedBytes))"))
            \(tile("Found at peers", DebugText.share(last.hits, of: asked), "of \(asked) requests in the last hour"))
            \(tile("Peers", "\(status.peers.count)", "in the routing table"))
            \(tile("Up", uptime, "\(status.openConnections) connections, \(traffic.transferCount) transfers"))
            </section>
            """
    }

    private func tile(_ name: String, _ value: String, _ detail: String) -> HTML {
        #"<div class="tile"><h2>\#(name)</h2><p class="value">\#(value)</p><p class="detail">\#(detail)</p></div>"#
    }

    // MARK: The last hour

    /// The last sixty minutes in order, those without traffic included.
    private var minutes: [Traffic] {
        let now = (traffic.time / 60).rounded(.down) * 60
        var result = Array(repeating: Traffic(), count: 60)
        for interval in traffic.minutes {
            let age = Int(((now - interval.start) / 60).rounded())
            if (0..<60).contains(age) { result[59 - age] += interval.traffic }
        }
        return result
    }

    private var hour: HTML {
        let minutes = minutes
        let hits = minutes.reduce(0) { $0 + $1.hits }
        var reasons: [String: Int] = [:]
        for minute in minutes { for (reason, count) in minute.misses { reasons[reason, default: 0] += count } }
        let misses = reasons.values.reduce(0, +)
        let bytes = minutes.reduce(Int64(0)) { $0 &+ $1.savedBytes }
        let sorted = reasons.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        let list: [HTML] = sorted.map { "<li>\($0.value) × \(DebugText.missReason($0.key))</li>" }
        return """
            <section class="plots" aria-labelledby="hour"><h2 id="hour">The last hour</h2>
            <figure><figcaption>Saved from the upstream: \(DebugText.bytes(bytes))</figcaption>\
            \(plot([minutes.map { Double($0.savedBytes) }], classes: ["saved"], label: "Bytes saved in each of the last 60 minutes, \(DebugText.bytes(bytes)) in all; the most in a minute were \(DebugText.bytes(minutes.map(\.savedBytes).max() ?? 0))"))</figure>
            <figure><figcaption><span class="key hit"></span>\(hits) found at peers \
            <span class="key miss"></span>\(misses) not found</figcaption>\
            \(plot([minutes.map { Double($0.hits) }, minutes.map { Double($0.missCount) }], classes: ["hit", "miss"], label: "Requests in each of the last 60 minutes: \(hits) answered by peers, \(misses) not"))</figure>
            <ul class="reasons" aria-label="Reasons why nothing was found at peers">\(list.isEmpty ? ["<li>nothing was missed</li>"] : list)</ul>
            </section>
            """
    }

    /// Bars of sixty minutes, stacked.
    private func plot(_ series: [[Double]], classes: [String], label: String) -> HTML {
        let count = series.first?.count ?? 0
        let sums = (0..<count).map { index in series.reduce(0) { $0 + $1[index] } }
        let most = max(sums.max() ?? 0, 1)
        var bars: HTML = ""
        for index in 0..<count where sums[index] > 0 {
            var base = 100.0
            for (values, name) in zip(series, classes) where values[index] > 0 {
                let height = max(1, values[index] / most * 96)
                base -= height
                bars +=
                    #"<rect class="\#(name)" x="\#(index * 10 + 1)" y="\#(Self.number(base))" width="8" height="\#(Self.number(height))"/>"#
            }
        }
        return """
            <svg viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="\(label)">\
            <line class="axis" x1="0" y1="99.5" x2="600" y2="99.5"/>\(bars)</svg>
            """
    }

    private static func number(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return tenths < 0 ? "0" : "\(tenths / 10).\(tenths % 10)"
    }

    // MARK: Tables

    private func table(
        _ id: String, _ title: String, columns: [(name: String, isNumber: Bool)], rows: [[HTML]], empty: String
    ) -> HTML {
        let heads: [HTML] = columns.map {
            $0.isNumber ? #"<th scope="col" class="number">\#($0.name)</th>"# : #"<th scope="col">\#($0.name)</th>"#
        }
        let body: [HTML] = rows.prefix(Self.rowLimit).map { row in
            let cells: [HTML] = zip(row, columns).map {
                $1.isNumber ? #"<td class="number">\#($0)</td>"# : "<td>\($0)</td>"
            }
            return "<tr>\(cells)</tr>"
        }
        let more: HTML = rows.count > Self.rowLimit ? "<p>and \(rows.count - Self.rowLimit) more</p>" : ""
        let content: HTML =
            rows.isEmpty
            ? "<p class=\"empty\">\(empty)</p>"
            : """
            <div class="scroll" tabindex="0" role="group" aria-labelledby="\(id)">\
            <table><thead><tr>\(heads)</tr></thead><tbody>\(body)</tbody></table></div>\(more)
            """
        return """
            <section aria-labelledby="\(id)"><h2 id="\(id)">\(title)</h2>
            \(content)
            </section>
            """
    }

    private var transfers: HTML {
        table(
            "transfers", "Transfers under way",
            columns: [
                ("image", false), ("content", false), ("from", false), ("received", true), ("progress", false),
                ("clients", true),
            ],
            rows: traffic.transfers.map { transfer in
                let total = transfer.totalBytes
                let progress: HTML =
                    total.map { total in
                        #"<progress max="\#("\(max(1, total))")" value="\#("\(min(transfer.bytes, max(1, total)))")" aria-label="\#(DebugText.share(Int(clamping: transfer.bytes), of: Int(clamping: total))) of \#(Self.short(transfer.reference))"></progress>"#
                    } ?? "waiting for a peer"
                return [
                    "\(transfer.image)", Self.code(transfer.reference), Self.peers(transfer.peers),
                    "\(DebugText.bytes(transfer.bytes))\(total.map { " of \(DebugText.bytes($0))" } ?? "")", progress,
                    "\(transfer.clients)",
                ]
            },
            empty: "None. While content comes from a peer, its progress is here.")
    }

    private var images: HTML {
        table(
            "images", "Images",
            columns: [
                ("image", false), ("last tag", false), ("saved", true), ("given", true), ("found", true),
                ("not found", true), ("taken from", false), ("last used", false),
            ],
            rows: traffic.images.map { image in
                let sources = image.takenFrom.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(3)
                let names: [HTML] = sources.map {
                    #"<span class="source">\#(Self.id($0.key)) \#(DebugText.bytes($0.value))</span> "#
                }
                return [
                    "\(image.name)", "\(image.lastTag ?? "")", "\(DebugText.bytes(image.traffic.savedBytes))",
                    "\(DebugText.bytes(image.traffic.servedBytes))", "\(image.traffic.hits)",
                    "\(image.traffic.missCount)", "\(names)", "\(DebugText.time(image.lastUsed))",
                ]
            },
            empty: "None yet. Images that were pulled through peers, or given to them, appear here.")
    }

    private var peers: HTML {
        let known = Dictionary(
            traffic.peers.map { ($0.id ?? $0.address ?? "", $0) }, uniquingKeysWith: { first, _ in first })
        let inTable = Set(status.peers.map(\.id))
        func row(_ id: String?, _ addresses: String, _ state: String, _ peer: TrafficSnapshot.Peer?) -> [HTML] {
            let outcome: HTML
            switch peer?.lastOutcome {
            case nil: outcome = ""
            case "completed"?: outcome = #"<span class="good">completed</span>"#
            case let failure?: outcome = #"<span class="bad">\#(failure)</span>"#
            }
            return [
                id.map(Self.id) ?? "", "\(addresses)", "\(state)", "\(DebugText.bytes(peer?.takenBytes ?? 0))",
                "\(DebugText.bytes(peer?.givenBytes ?? 0))", "\(peer?.completed ?? 0)", "\(peer?.failed ?? 0)", outcome,
            ]
        }
        var rows = status.peers.map { peer in
            row(peer.id, peer.addresses.joined(separator: ", "), "in the routing table", known[peer.id])
        }
        rows += traffic.peers.filter { peer in peer.id.map { !inTable.contains($0) } ?? true }.map { peer in
            row(peer.id, peer.address ?? "", peer.id == nil ? "asked only" : "not in the table now", peer)
        }
        return table(
            "peers", "Peers",
            columns: [
                ("ID", false), ("addresses", false), ("state", false), ("taken", true), ("given", true),
                ("completed", true), ("failed", true), ("last", false),
            ], rows: rows, empty: status.localPeer == nil ? "This node serves without peers." : "None is known yet.")
    }

    private var requestTable: HTML {
        table(
            "requests", "The last \(RequestLog.limit) requests",
            columns: [
                ("time", false), ("client", false), ("request", false), ("outcome", false), ("bytes", true),
                ("ms", true),
            ],
            rows: requests.reversed().map { entry in
                let isGood = entry.outcome == "served"
                let status = entry.status.map { " (\($0))" } ?? ""
                return [
                    "\(DebugText.time(entry.time))", "\(entry.client ?? "")",
                    #"<code class="target">\#(entry.method) \#(entry.target)</code>"#,
                    #"<span class="\#(isGood ? "good" : "bad")">\#(entry.outcome)\#(status)</span>"#,
                    "\(DebugText.bytes(entry.bytes))", "\(Self.number(entry.milliseconds))",
                ]
            }, empty: "None yet.")
    }

    private var node: HTML {
        var rows: [(name: String, value: HTML)] = []
        if let local = status.localPeer {
            rows.append(("identity", "<code>\(local.id)</code>"))
            rows.append(("addresses", "\(local.addresses.joined(separator: ", "))"))
        }
        rows.append(("registry", "\(status.registryAddresses.joined(separator: ", "))"))
        if let store = status.store {
            rows.append(("store", "\(store.images) images\(store.isListed ? "" : ", being listed")"))
        }
        rows.append(("advertised", "\(status.advertisedKeyCount) digests and tags"))
        if let mirror = status.mirror {
            rows.append(("requests under way", "\(mirror.requestsUnderWay)"))
            rows.append(("last success", "\(mirror.lastSuccess.map { DebugText.time($0) } ?? "never")"))
        }
        let items: [HTML] = rows.map { "<dt>\($0.name)</dt><dd>\($0.value)</dd>" }
        let registries: [HTML] = traffic.registries.prefix(Self.rowLimit).map {
            "<dt>\($0.name.isEmpty ? "no registry named" : $0.name)</dt><dd>saved \(DebugText.bytes($0.traffic.savedBytes)), \($0.traffic.hits) found, \($0.traffic.missCount) not found</dd>"
        }
        return """
            <section aria-labelledby="node"><h2 id="node">This node</h2>
            <dl>\(items)</dl>
            <h3>Registries</h3>
            <dl>\(registries.isEmpty ? ["<dt>none yet</dt><dd></dd>"] : registries)</dl>
            </section>
            """
    }

    /// A peer ID by its end, which differs between peers; whole for the pointer.
    private static func id(_ id: String) -> HTML {
        #"<code title="\#(id)">…\#(String(id.suffix(8)))</code>"#
    }

    private static func peers(_ ids: [String]) -> HTML {
        let names: [HTML] = ids.suffix(3).map { "\(id($0)) " }
        return "\(names)"
    }

    private static func short(_ reference: String) -> String {
        reference.hasPrefix("sha256:") ? String(reference.prefix(19)) : reference
    }

    private static func code(_ reference: String) -> HTML {
        #"<code title="\#(reference)">\#(short(reference))</code>"#
    }
}
