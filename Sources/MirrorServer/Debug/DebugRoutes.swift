import Foundation
import HTTPServer
import NIOCore
import PeerRoutingCore
import PrometheusMetrics

extension AdminServer.Route {
    /// `/debug/web/metadata`: who this node is, as `{"libp2p":{"id":"12D3…"}}`.
    public static func metadata(_ router: any PeerRouter) -> AdminServer.Route {
        AdminServer.Route("/debug/web/metadata") { _ in
            // A peer ID is base58 and needs no escaping.
            AdminServer.Response(
                contentType: "application/json",
                body: ByteBuffer(string: #"{"libp2p":{"id":"\#(router.localPeer.id)"}}"#))
        }
    }

    /// `/debug/status`: the state of a node as JSON; see ``MirrorNode/Status``.
    static func status(_ status: @escaping @Sendable () async -> MirrorNode.Status?) -> AdminServer.Route {
        AdminServer.Route("/debug/status") { _ in
            guard let status = await status() else {
                return AdminServer.Response(.serviceUnavailable, body: ByteBuffer(string: "the node has ended\n"))
            }
            return AdminServer.Response(
                contentType: "application/json", fields: [("Cache-Control", "no-store")], body: try status.json())
        }
    }

    /// `/debug/requests`: the last requests of the registry as a JSON array, oldest first.
    static func requests(_ log: RequestLog) -> AdminServer.Route {
        AdminServer.Route("/debug/requests") { _ in
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return AdminServer.Response(
                contentType: "application/json", fields: [("Cache-Control", "no-store")],
                body: ByteBuffer(bytes: try encoder.encode(log.entries)))
        }
    }

    /// `/debug/traffic`: what was exchanged with peers and saved, as JSON; see ``TrafficSnapshot``.
    static func traffic(_ ledger: TrafficLedger) -> AdminServer.Route {
        AdminServer.Route("/debug/traffic") { _ in
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return AdminServer.Response(
                contentType: "application/json", fields: [("Cache-Control", "no-store")],
                body: ByteBuffer(bytes: try encoder.encode(ledger.snapshot())))
        }
    }

    /// `/debug/web/` and what it loads, and `/`, which leads there; see ``DebugPage``.
    static func debugPage(_ page: @escaping @Sendable () async -> DebugPage?) -> [AdminServer.Route] {
        func asset(_ path: String, _ type: String, _ text: String) -> AdminServer.Route {
            AdminServer.Route(path) { _ in
                AdminServer.Response(
                    contentType: type, fields: [("Cache-Control", "max-age=300")] + Self.pageSecurity,
                    body: ByteBuffer(string: text))
            }
        }
        return [
            AdminServer.Route("/") { request in
                guard request.path == "/" else {
                    return AdminServer.Response(.notFound, body: ByteBuffer(string: "no such path\n"))
                }
                return AdminServer.Response(
                    .found, fields: [("Location", "/debug/web/")], body: ByteBuffer(string: "see /debug/web/\n"))
            },
            AdminServer.Route("/debug/web/") { request in
                guard request.path == "/debug/web/" else {
                    return AdminServer.Response(.notFound, body: ByteBuffer(string: "no such path\n"))
                }
                return await html(page, \.document)
            },
            AdminServer.Route("/debug/web/live") { _ in await html(page, \.content) },
            asset("/debug/web/page.css", "text/css; charset=utf-8", DebugAssets.style),
            asset("/debug/web/page.js", "text/javascript; charset=utf-8", DebugAssets.script),
            asset("/debug/web/icon.svg", "image/svg+xml", DebugAssets.icon),
        ]
    }

    private static func html(
        _ page: @Sendable () async -> DebugPage?, _ part: (DebugPage) -> HTML
    ) async -> AdminServer.Response {
        guard let page = await page() else {
            return AdminServer.Response(.serviceUnavailable, body: ByteBuffer(string: "the node has ended\n"))
        }
        return AdminServer.Response(
            contentType: "text/html; charset=utf-8", fields: [("Cache-Control", "no-store")] + pageSecurity,
            body: ByteBuffer(string: part(page).text))
    }

    /// Nothing but the page's own files is loaded, nothing is sent anywhere, and no other page may embed it.
    private static let pageSecurity: [(name: String, value: String)] = [
        (
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
                + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
    ]
}
