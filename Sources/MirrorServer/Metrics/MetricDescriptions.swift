import PrometheusMetrics

/// The help texts of this module's metrics.
enum MetricDescriptions {
    static let help: [String: String] = [
        "spegel_mirror_requests_total": "Requests for content that is not local, by whether a peer had it.",
        "spegel_mirror_last_success_timestamp_seconds": "Time of the last request served with a peer's content.",
        "spegel_resolve_duration_seconds": "Time until the first peer was found, or the lookup ended without one.",
        "spegel_mirror_verifications_total": "Bodies relayed from peers, by the result of verifying their digest.",
        "spegel_mirror_shared_requests_total": "Requests served by the transfer of another request.",
        "spegel_mirror_hedges_total": "Requests to a further peer while another had not responded yet.",
        "spegel_mirror_resumes_total": "Transfers that were truncated and resumed at the exact byte.",
        "spegel_mirror_peer_requests_total": "Requests sent to peers.",
        "spegel_mirror_peer_failures_total": "Requests to peers that failed, by reason.",
        "spegel_mirror_received_bytes_total": "Bytes of bodies received from peers.",
        "spegel_mirror_transfers_inflight": "Bodies being relayed from peers.",
        "spegel_mirror_peer_first_byte_seconds": "Time from the request to a peer to the head of its response.",
        "spegel_advertised_images": "Images whose content is advertised.",
        "spegel_advertised_image_tags": "Tags that are advertised.",
        "spegel_advertised_image_digests": "Digests of images that are advertised.",
        "spegel_advertised_content_digests": "Digests of content that are advertised.",
        "spegel_advertised_keys": "Keys that are advertised, tags and digests together.",
        "spegel_advertise_failures_total": "Batches of keys that the router did not accept.",
        "spegel_advertise_corrections_total": "Keys whose advertisement was corrected by a comparison with the store.",
        "http_request_duration_seconds": "Time from the end of a request's head to the end of the response.",
        "http_response_size_bytes": "Size of response bodies.",
        "http_requests_inflight": "Requests being answered.",
    ]

    /// Sets the help texts in a registry.
    static func describe(in registry: PrometheusRegistry) {
        for (name, text) in help { registry.describe(name, help: text) }
    }
}
