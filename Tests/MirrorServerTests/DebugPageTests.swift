import ContentStore
import Foundation
import HTTPTestKit
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

@Suite(.timeLimit(.minutes(5))) struct DebugPageTests {
    private static let hostile = #"x"><script>alert('1')</script>&"#

    private func text(_ html: HTML) -> String { html.markup }

    @Test func interpolatedTextIsEscaped() {
        #expect(
            text("<b>\(Self.hostile)</b>") == "<b>x&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;</b>")
        #expect(text("\("a\u{202E}b\u{0}c\u{2066}d")") == "a\u{FFFD}b\u{FFFD}c\u{FFFD}d")
        let part: HTML = "<i>\(Self.hostile)</i>"
        #expect(text("\(part)\([part, part])") == text(part) + text(part) + text(part))
    }

    /// A page on which every text that comes from outside is hostile.
    private var hostilePage: DebugPage {
        let hostile = Self.hostile
        var accounts = TrafficAccounts(now: 1000)
        let subject = TrafficAccounts.Subject(registry: hostile, repository: hostile, tag: hostile)
        var traffic = Traffic()
        (traffic.hits, traffic.savedBytes, traffic.misses) = (1, 10, [hostile: 2])
        accounts.add(traffic, to: subject, now: 1001)
        accounts.addTaken(10, from: hostile, address: hostile, subject: subject, now: 1002)
        accounts.recordOutcome(hostile, of: hostile, now: 1003)
        accounts.addGiven(10, to: hostile + "2", subject: subject, now: 1004)
        var snapshot = accounts.snapshot(now: 1005)
        snapshot.transfers = [
            .init(
                number: 1, image: hostile, reference: hostile, start: 1000, bytes: 1, totalBytes: 2, peers: [hostile],
                clients: 1, sources: [.init(peer: hostile, address: hostile, offset: 0)])
        ]
        var status = MirrorNode.Status()
        status.reason = hostile
        status.registryAddresses = [hostile]
        status.findings = [.init(check: hostile, result: hostile, evidence: hostile, fix: hostile)]
        var peer = MirrorNode.Status.PeerInfo(Peer(id: NodeIdentity().peerID, addresses: []))
        (peer.id, peer.agent, peer.roundTripMilliseconds) = (hostile, hostile, 1.5)
        status.peers = [peer]
        var listing = StoredImageList.Listing(failure: hostile)
        listing.images = [.init(name: hostile, registry: hostile, digest: hostile, size: 1)]
        var report = MeasurementReport(number: 1, image: hostile, startedAt: 0)
        report.failure = hostile
        report.providers = [.init(id: hostile, addresses: [hostile], milliseconds: 1)]
        report.pieces = [.init(kind: hostile, reference: hostile, start: 0, peers: [hostile], failure: hostile)]
        return DebugPage(
            status: status, traffic: snapshot,
            requests: [
                .init(
                    number: 1, time: 1, client: hostile, method: hostile, target: hostile, handler: hostile,
                    status: 404,
                    bytes: 1, milliseconds: 1, isComplete: true, reason: hostile)
            ], images: listing, measurement: report, canMeasure: true, hasMetrics: true)
    }

    @Test func noHostileTextBecomesMarkup() {
        let page = hostilePage.document.markup
        #expect(!page.contains("<script>"))
        #expect(!page.contains(#"x">"#))
        #expect(page.components(separatedBy: "<script").count == 2)
        #expect(page.components(separatedBy: "x&quot;&gt;&lt;script&gt;").count > 15)
        // What the policy forbids must not be there either.
        #expect(!page.contains("style="))
        #expect(page.firstMatch(of: /\son[a-z]+=/) == nil)
        #expect(page.firstMatch(of: /(?:src|href)="(?:https?:)?\/\//) == nil)
    }

    @Test func everyFieldAndRegionHasALabel() throws {
        let page = hostilePage.document.markup
        let identifiers = page.matches(of: /\sid="([^"]*)"/).map { String($0.1) }
        #expect(Set(identifiers).count == identifiers.count)
        for match in page.matches(of: /(?:aria-labelledby|for)="([^"]*)"/) {
            #expect(identifiers.contains(String(match.1)), "\(match.1)")
        }
        for match in page.matches(of: /role="(?:img|region)"([^>]*)>/) { #expect(match.1.contains("aria-label=")) }
        for match in page.matches(of: /<img([^>]*)>/) { #expect(match.1.contains("alt=")) }
        for match in page.matches(of: /<progress([^>]*)>/) { #expect(match.1.contains("aria-label=")) }
    }

    private func withNode(_ body: (RawClient) async throws -> Void) async throws {
        try await withNode { client, _ in try await body(client) }
    }

    private func withNode(_ body: (RawClient, MirrorNode) async throws -> Void) async throws {
        let fixture = try await Fixture()
        var configuration = MirrorNode.Configuration(
            store: fixture.store,
            router: InMemoryPeerRouter(peer: Peer(id: NodeIdentity().peerID, addresses: [.loopbackV4])),
            registryAddress: ListenAddress(host: "127.0.0.1", port: 0),
            adminAddress: ListenAddress(host: "127.0.0.1", port: 0), logger: quiet)
        configuration.peerPort = 5000
        configuration.findings = {
            (0..<200).map { .init(check: "check-\($0)", result: "warning", evidence: "seen", fix: "mend") }
        }
        configuration.filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["secret"])
        let node = try MirrorNode(configuration)
        try await node.start()
        do {
            try await RawClient.with(port: try #require(node.adminAddresses.first?.port)) {
                try await body($0, node)
            }
        } catch {
            await node.shutdown()
            throw error
        }
        await node.shutdown()
    }

    @Test func pageIsServedUnderItsPolicy() async throws {
        try await withNode { client in
            let root = try await client.request("/")
            #expect(root.status == 302)
            #expect(root["location"] == "debug/web/")
            let page = try await client.request("/debug/web/")
            #expect(page.status == 200)
            #expect(page["content-type"] == "text/html; charset=utf-8")
            #expect(page.text.contains("docker.io/library/demo:1.0"))
            let policy = try #require(page["content-security-policy"])
            #expect(policy.hasPrefix("default-src 'none'; script-src 'self'; style-src 'self'"))
            #expect(!policy.contains("unsafe"))
            #expect(page["x-content-type-options"] == "nosniff")
            for path in ["page.css", "page.js", "icon.svg"] {
                #expect(page.text.contains(#""\#(path)""#))
                #expect(try await client.request("/debug/web/\(path)").status == 200)
            }
            #expect(try await client.request("/debug/web/other").status == 404)
            let metadata = try await client.request("/debug/web/metadata")
            #expect(metadata.text.hasPrefix(#"{"libp2p":{"id":""#))
            let traffic = try await client.request("/debug/traffic")
            let snapshot = try JSONDecoder().decode(TrafficSnapshot.self, from: Data(traffic.text.utf8))
            #expect(snapshot.minutes.count == 60)
        }
    }

    @Test func requestsSayWhyTheyMissed() async throws {
        try await withNode { client, node in
            let absent = Digest.hash(of: Array("absent".utf8))
            try await RawClient.with(port: try #require(node.registryAddresses.first?.port)) { registry in
                for (path, fields) in [
                    ("/v2/library/demo/blobs/\(absent)?ns=docker.io", ""),
                    ("/v2/library/demo/blobs/\(absent)?ns=docker.io", "X-Spegel-Mirrored: true\r\n"),
                    ("/v2/library/secret/blobs/\(absent)?ns=docker.io", ""), ("/v2/nothing", ""),
                ] {
                    let response = try await registry.request(path, fields: fields)
                    #expect(response.status == 404)
                }
                let response = try await registry.request("/v2/library/demo/manifests/1.0?ns=docker.io")
                #expect(response.status == 200)
            }
            let entries = try JSONDecoder().decode(
                [RequestLog.Entry].self, from: Data(try await client.request("/debug/requests").text.utf8))
            #expect(entries.map(\.reason) == ["absent", "local", "filtered", nil, nil])
            let page = try await client.request("/debug/web/").text
            for text in ["no peer has it", "not in the store, and no peer is asked", "filtered", "no such path"] {
                #expect(page.contains("</span> <small>\(text)</small>"), "\(text)")
            }
        }
    }

    @Test func findingsAreLimitedAndShown() async throws {
        try await withNode { client in
            let status = try JSONDecoder().decode(
                MirrorNode.Status.self, from: Data(try await client.request("/debug/status").text.utf8))
            #expect(status.processID == getpid())
            #expect(status.findings.count == MirrorNode.Status.findingLimit)
            let page = try await client.request("/debug/web/").text
            #expect(page.contains("<b>check-99</b> seen<pre>mend</pre>"))
            #expect(!page.contains("check-100"))
        }
    }

    @Test func measurementIsStartedByItsOwnPageOnly() async throws {
        try await withNode { client in
            let path = "/debug/web/measure?image=docker.io%2Flibrary%2Fother:1.0"
            let own = "X-Requested-With: spegel\r\n"
            #expect(try await client.request(path).status == 405)
            #expect(try await client.request(path, method: "POST").status == 403)
            for field in [
                "Origin: http://elsewhere.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: same-site\r\n",
            ] {
                #expect(try await client.request(path, method: "POST", fields: own + field).status == 403, "\(field)")
            }
            #expect(try await client.request("/debug/web/measurement").text == "null")
            for image in ["", "%20", "a%00b", "http://x", String(repeating: "a", count: 600)] {
                let response = try await client.request(
                    "/debug/web/measure?image=\(image)", method: "POST", fields: own)
                #expect(response.status == 400, "\(image)")
            }
            let secret = try await client.request(
                "/debug/web/measure?image=docker.io/library/secret:1", method: "POST", fields: own)
            #expect(secret.status == 403)
            #expect(
                try await client.request(path, method: "POST", fields: own + "Origin: http://test\r\n").status == 202)
            try await eventually {
                let text = try await client.request("/debug/web/measurement").text
                return try JSONDecoder().decode(MeasurementReport.self, from: Data(text.utf8)).phase == .failed
            }
            let text = try await client.request("/debug/web/measurement").text
            let report = try JSONDecoder().decode(MeasurementReport.self, from: Data(text.utf8))
            #expect(report.image == "docker.io/library/other:1.0")
            #expect(report.pieces.first?.failure == "status 404")
            #expect(report.providers.isEmpty)
            // Not counted as a request of a client.
            let traffic = try await client.request("/debug/traffic")
            let snapshot = try JSONDecoder().decode(TrafficSnapshot.self, from: Data(traffic.text.utf8))
            #expect(snapshot.total == Traffic())
        }
    }
}
