import NIOCore
import PeerRouting

extension AuxiliaryServer.Route {
    /// `/metrics`: everything in `registry`, in the Prometheus text format 0.0.4.
    public static func metrics(_ registry: PrometheusRegistry) -> AuxiliaryServer.Route {
        AuxiliaryServer.Route("/metrics") { _ in
            AuxiliaryServer.Response(
                contentType: PrometheusText.contentType, fields: [("Cache-Control", "no-store")],
                body: ByteBuffer(bytes: registry.text()))
        }
    }

    /// `/debug/web/metadata`: who this node is, as `{"libp2p":{"id":"12D3…"}}`.
    public static func metadata(_ router: any PeerRouter) -> AuxiliaryServer.Route {
        AuxiliaryServer.Route("/debug/web/metadata") { _ in
            // A peer ID is base58 and needs no escaping.
            AuxiliaryServer.Response(
                contentType: "application/json",
                body: ByteBuffer(string: #"{"libp2p":{"id":"\#(router.localPeer.id)"}}"#))
        }
    }
}
