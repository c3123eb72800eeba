// What an embedder names when it configures a node: `ListenAddress`, `HTTPLimits`, `PrometheusRegistry`, `PeerRouter`, …
@_exported public import HTTPServer
@_exported public import PeerRoutingCore
@_exported public import PrometheusMetrics
