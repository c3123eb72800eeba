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
}
