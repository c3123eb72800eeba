import HTTPServer
import NIOCore
import PrometheusMetrics

extension AdminServer.Route {
    /// `/metrics`: everything in `registry`, in the Prometheus text format 0.0.4, or as OpenMetrics 1.0 if `Accept` asks for
    /// it; compressed if `Accept-Encoding` allows gzip.
    public static func metrics(_ registry: PrometheusRegistry) -> AdminServer.Route {
        MetricDescriptions.describe(in: registry)
        return AdminServer.Route("/metrics") { request in
            await registry.collect()
            let format = ContentNegotiation.metricsFormat(request.fields.values(of: "accept"))
            var fields: [(name: String, value: String)] = [
                ("Cache-Control", "no-store"), ("Vary", "Accept, Accept-Encoding"),
            ]
            var body = registry.text(format)
            if ContentNegotiation.acceptsGzip(request.fields.values(of: "accept-encoding")),
                let compressed = Gzip.compress(body)
            {
                body = compressed
                fields.append(("Content-Encoding", "gzip"))
            }
            return AdminServer.Response(
                contentType: format.contentType, fields: fields, body: ByteBuffer(bytes: body))
        }
    }
}
