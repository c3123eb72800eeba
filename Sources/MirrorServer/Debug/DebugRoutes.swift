import Foundation
import HTTPServer
import NIOCore
import NIOHTTP1
import OCIDistribution
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
        AdminServer.Route("/debug/requests") { _ in try .json(log.entries) }
    }

    /// `/debug/traffic`: what was exchanged and saved; see ``TrafficSnapshot``.
    static func traffic(_ ledger: TrafficLedger) -> AdminServer.Route {
        AdminServer.Route("/debug/traffic") { _ in try .json(ledger.snapshot()) }
    }

    /// The page at `/debug/web/` with its style and script, and `/`, which leads there.
    static func debugPage(_ content: @escaping @Sendable () async -> ByteBuffer?) -> [AdminServer.Route] {
        [
            AdminServer.Route("/debug/web/") { request in
                guard request.path == "/debug/web/" else {
                    return .init(.notFound, body: ByteBuffer(string: "no such path\n"))
                }
                guard let page = await content() else {
                    return AdminServer.Response(.serviceUnavailable, body: ByteBuffer(string: "the node has ended\n"))
                }
                return AdminServer.Response(
                    contentType: "text/html; charset=utf-8", fields: DebugPage.securityFields,
                    body: page)
            },
            asset("/debug/web/page.css", "text/css; charset=utf-8", DebugPage.styleSheet),
            asset("/debug/web/page.js", "text/javascript; charset=utf-8", DebugPage.script),
            asset("/debug/web/icon.svg", "image/svg+xml", DebugPage.icon),
            redirect("/", to: "debug/web/"), redirect("/debug/web", to: "web/"),
        ]
    }

    private static func asset(_ path: String, _ contentType: String, _ text: String) -> AdminServer.Route {
        AdminServer.Route(path) { _ in
            AdminServer.Response(
                contentType: contentType, fields: DebugPage.securityFields, body: ByteBuffer(string: text))
        }
    }

    private static func redirect(_ path: String, to target: String) -> AdminServer.Route {
        AdminServer.Route(path) { request in
            guard request.path == path else { return .init(.notFound, body: ByteBuffer(string: "no such path\n")) }
            return AdminServer.Response(.found, fields: [("Location", target)], body: ByteBuffer())
        }
    }

    /// The measurement of a pull: `POST /debug/web/measure?image=…` starts one, `POST /debug/web/measure/cancel` cancels it,
    /// `GET /debug/web/measurement` tells its ``MeasurementReport`` or `null`.
    static func measurement(_ measurement: PullMeasurement, filter: ReferenceFilter) -> [AdminServer.Route] {
        [
            AdminServer.Route("/debug/web/measurement") { _ in try .json(measurement.report) },
            AdminServer.Route("/debug/web/measure", isPost: true) { request in
                guard isSameOrigin(request) else { return .refusal(.forbidden, "the request is of another origin") }
                guard let text = imageName(request.query), text.utf8.count <= PullMeasurement.nameLimit,
                    let reference = try? Reference(parsingWithDockerDefaults: text).withDefaultTag
                else { return .refusal(.badRequest, "expected an image such as docker.io/library/nginx:1.27") }
                guard filter.allows(reference) else {
                    return .refusal(.forbidden, "the options of this node exclude the image")
                }
                do throws(PullMeasurement.Refusal) {
                    try measurement.start(reference, head: request)
                } catch {
                    switch error {
                    case .busy: return .refusal(.conflict, "a measurement runs already")
                    case .ended: return .refusal(.serviceUnavailable, "the node has ended")
                    }
                }
                return try .json(measurement.report, status: .accepted)
            },
            AdminServer.Route("/debug/web/measure/cancel", isPost: true) { request in
                guard isSameOrigin(request) else { return .refusal(.forbidden, "the request is of another origin") }
                measurement.cancel()
                return try .json(measurement.report, status: .accepted)
            },
        ]
    }

    /// The `image` parameter of a query, percent-decoded; nil without one.
    private static func imageName(_ query: Substring?) -> String? {
        for item in (query ?? "").split(separator: "&") where item.hasPrefix("image=") {
            return formDecoded(item.utf8.dropFirst(6))?.split(separator: " ").joined(separator: " ")
        }
        return nil
    }

    /// A value of `application/x-www-form-urlencoded`; nil when it is not well-formed or no UTF-8.
    private static func formDecoded(_ text: Substring.UTF8View.SubSequence) -> String? {
        let bytes = text.map { $0 == UInt8(ascii: "+") ? UInt8(ascii: " ") : $0 }
        return bytes.withUnsafeBufferPointer {
            PercentEncoding.withDecoded($0) { $0.flatMap { String(validating: $0, as: UTF8.self) } }
        }
    }

    /// Whether a request was made by the page itself or by a program, not by another site.
    ///
    /// A browser adds `X-Requested-With` to a request to another origin only after a preflight, which is refused here.
    static func isSameOrigin(_ request: RequestHead) -> Bool {
        guard request.fields["x-requested-with"] == "spegel" else { return false }
        if let site = request.fields["sec-fetch-site"], site != "same-origin" { return false }
        guard let origin = request.fields["origin"] else { return true }
        guard let host = request.fields["host"] else { return false }
        return origin == "http://\(host)" || origin == "https://\(host)"
    }
}

extension AdminServer.Response {
    /// A value as JSON with sorted names.
    fileprivate static func json(_ value: some Encodable, status: HTTPResponseStatus = .ok) throws -> Self {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Self(
            status, contentType: "application/json",
            fields: [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")],
            body: ByteBuffer(bytes: try encoder.encode(value)))
    }

    fileprivate static func refusal(_ status: HTTPResponseStatus, _ reason: String) -> Self {
        Self(status, fields: [("Cache-Control", "no-store")], body: ByteBuffer(string: reason + "\n"))
    }
}
