import PrometheusMetrics

/// The help texts of this module's metrics.
enum MetricDescriptions {
    static let help: [String: String] = [
        "spegel_mirror_requests_total": "Requests for content that is not local, by whether a peer's content answered.",
        "spegel_mirror_last_success_timestamp_seconds": "When a request was last answered with a peer's content.",
        "spegel_resolve_duration_seconds": "Time until the first peer was found, or the search for one was given up.",
        "spegel_mirror_verifications_total": "Bodies passed on from peers, by what the check of their digest said.",
        "spegel_mirror_shared_requests_total": "Requests answered by a transfer that another request had begun.",
        "spegel_mirror_hedges_total": "Requests to a further peer while another had not answered yet.",
        "spegel_mirror_resumes_total": "Transfers that broke off and were carried on from the exact byte.",
        "spegel_mirror_peer_requests_total": "Requests sent to peers.",
        "spegel_mirror_peer_failures_total": "Requests to peers that came to nothing, by reason.",
        "spegel_mirror_received_bytes_total": "Bytes of bodies received from peers.",
        "spegel_mirror_transfers_inflight": "Bodies being passed on from peers.",
        "spegel_mirror_peer_first_byte_seconds": "Time from the request to a peer to the head of its answer.",
        "spegel_advertised_images": "Images whose content is advertised.",
        "spegel_advertised_image_tags": "Tags that are advertised.",
        "spegel_advertised_image_digests": "Digests of images that are advertised.",
        "spegel_advertised_content_digests": "Digests of content that are advertised.",
        "spegel_advertised_keys": "Keys that are advertised, tags and digests together.",
        "spegel_advertise_failures_total": "Batches of keys that the router did not take.",
        "spegel_advertise_corrections_total": "Keys whose advertisement was corrected when compared with the store.",
        "http_request_duration_seconds": "Time from the end of a request's head to the end of the response.",
        "http_response_size_bytes": "Size of response bodies.",
        "http_requests_inflight": "Requests being answered.",
    ]

    /// Sets the help texts in a registry.
    static func describe(in registry: PrometheusRegistry) {
        for (name, text) in help { registry.describe(name, help: text) }
    }
}
