import ContentStore
import Foundation
import HTTPTestKit
import Logging
import NIOCore
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// The debug web page: what a browser gets, and that names chosen by others stay text.
@Suite struct DebugPageTests {
    private let hostile = [
        "<script>alert(1)</script>", "\" onmouseover=\"alert(1)", "'><img src=x onerror=alert(1)>", "a\u{0}b\u{1b}[2J",
        "\u{202E}gnp.exe", "&lt;b&gt;", "</table></main>",
    ]

    /// A page in which everything that comes from outside is hostile.
    private func hostilePage() -> DebugPage {
        var (status, traffic) = (MirrorNode.Status(), TrafficSnapshot())
        traffic.time = 1_700_000_000
        status.reason = hostile[0]
        status.registryAddresses = hostile
        var counts = Traffic()
        counts.misses = Dictionary(uniqueKeysWithValues: hostile.map { ($0, 1) })
        traffic.minutes = [.init(start: 1_699_999_980, traffic: counts)]
        traffic.registries = hostile.map { .init(name: $0, traffic: counts) }
        traffic.images = hostile.map {
            .init(name: $0, lastTag: $0, lastUsed: 0, traffic: counts, takenFrom: [$0: 5])
        }
        traffic.peers = hostile.map {
            .init(
                id: $0, address: $0, givenBytes: 1, takenBytes: 1, completed: 0, failed: 1, lastOutcome: $0, lastUsed: 0
            )
        }
        traffic.transfers = hostile.map {
            .init(
                number: 1, image: $0, reference: $0, start: 0, bytes: 5, totalBytes: 10, peers: [$0], clients: 1)
        }
        let requests = hostile.map {
            RequestLog.Entry(
                number: 1, time: 0, client: $0, method: $0, target: $0, handler: $0, status: 200, bytes: 1,
                milliseconds: 1, isComplete: true)
        }
        return DebugPage(status: status, traffic: traffic, requests: requests)
    }

    @Test func namesOfOthersStayText() throws {
        let text = hostilePage().document.text
        // The page's own markup has one script, and none of these.
        #expect(text.components(separatedBy: "<script").count == 2)
        for part in ["<img", "onerror=alert(1)>", "\" onmouseover", "\u{0}", "\u{1b}", "\u{202E}", "</table></main>"] {
            #expect(!text.contains(part), "\(part)")
        }
        #expect(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"))
        #expect(text.contains("&amp;lt;b&amp;gt;"))
        // Every tag that is opened is closed: the hostile names have not changed the structure.
        for tag in ["section", "table", "tr", "td", "th", "dl", "dd", "div", "main", "header", "svg", "code"] {
            let opened = text.components(separatedBy: "<\(tag)").dropFirst().count {
                $0.first.map { " >".contains($0) } ?? false
            }
            #expect(opened == text.components(separatedBy: "</\(tag)>").count - 1, "\(tag)")
        }
    }

    @Test func tablesAreBounded() {
        var traffic = TrafficSnapshot()
        traffic.images = (0..<5000).map {
            .init(name: "r/\($0)", lastTag: nil, lastUsed: 0, traffic: Traffic(), takenFrom: [:])
        }
        let text = DebugPage(status: MirrorNode.Status(), traffic: traffic, requests: []).document.text
        #expect(text.components(separatedBy: "<td>r/").count - 1 == DebugPage.rowLimit)
        #expect(text.contains("and 4900 more"))
    }

    @Test func figuresAreInWords() {
        #expect(DebugText.bytes(1023) == "1023 B")
        #expect(DebugText.bytes(1536) == "1.5 KiB")
        #expect(DebugText.bytes(1_048_575) == "1.0 MiB")
        #expect(DebugText.bytes(.max).hasSuffix("EiB"))
        #expect(DebugText.time(1_700_000_000) == "22:13:20")
        #expect(DebugText.duration(-1) == "0 s" && DebugText.duration(.infinity).hasSuffix("h"))
        #expect(DebugText.duration(7500) == "2 h 5 min")
        #expect(DebugText.share(1, of: 3) == "33 %" && DebugText.share(0, of: 0) == "–")
    }

    /// What is served where, with headers that let nothing else be loaded; nothing but reading is allowed.
    @Test func isServedWithItsFilesAndNothingElse() async throws {
        let fixture = try await Fixture()
        let loopback = ListenAddress(host: "127.0.0.1", port: 0)
        let node = try MirrorNode(
            MirrorNode.Configuration(
                store: fixture.store, router: nil, registryAddress: loopback, adminAddress: loopback,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }))
        try await node.start()
        let port = try #require(node.adminAddresses.first?.port)
        try await RawClient.with(port: port) { client async throws in
            let root = try await client.request("/")
            #expect(root.status == 302)
            #expect(root["location"] == "/debug/web/")
            let page = try await client.request("/debug/web/")
            #expect(page.status == 200)
            #expect(page["content-type"] == "text/html; charset=utf-8")
            #expect(page["cache-control"] == "no-store")
            let policy = try #require(page["content-security-policy"])
            #expect(policy.hasPrefix("default-src 'none';") && !policy.contains("unsafe"))
            let text = String(buffer: page.body)
            #expect(text.contains("serves without peers"))
            #expect(text.contains("<main id=\"content\">") && text.contains("lang=\"en\""))
            // Everything that the page loads is there, and of this server.
            #expect(!text.contains("//cdn") && !text.contains("https://"))
            for file in ["page.css", "page.js", "icon.svg"] {
                #expect(text.contains("\"\(file)\""))
                #expect(try await client.request("/debug/web/\(file)").status == 200)
            }
            let live = String(buffer: try await client.request("/debug/web/live").body)
            #expect(live.contains("<main id=\"content\">") && !live.contains("<html"))
            let traffic = try await client.request("/debug/traffic")
            _ = try JSONDecoder().decode(TrafficSnapshot.self, from: Data(traffic.body.readableBytesView))
            for path in ["/debug/web/other", "/debug", "/x"] {
                #expect(try await client.request(path).status == 404, "\(path)")
            }
        }
        await node.shutdown()
    }

    @Test func isNotServedWhereItIsSwitchedOff() async throws {
        let fixture = try await Fixture()
        let loopback = ListenAddress(host: "127.0.0.1", port: 0)
        var configuration = MirrorNode.Configuration(
            store: fixture.store, router: nil, registryAddress: loopback, adminAddress: loopback,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        configuration.servesDebugPages = false
        let node = try MirrorNode(configuration)
        try await node.start()
        let port = try #require(node.adminAddresses.first?.port)
        try await RawClient.with(port: port) { client async throws in
            for path in ["/", "/debug/web/", "/debug/web/live", "/debug/traffic", "/debug/status"] {
                #expect(try await client.request(path).status == 404, "\(path)")
            }
        }
        await node.shutdown()
    }
}
