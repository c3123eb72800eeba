import PrometheusMetrics

/// The help texts and buckets of this package's metrics. docs/metrics.md says more of each; a test compares both.
enum MetricDescriptions {
    static let help: [String: String] = [
        // Requests of clients, and bytes.
        "spegel_mirror_requests_total": "Requests for content that is not local, by whether a peer had it.",
        "spegel_mirror_misses_total": "Requests that were not answered with a peer's content, by reason.",
        "spegel_mirror_last_success_timestamp_seconds": "Time of the last request served with a peer's content.",
        "spegel_mirror_saved_bytes_total": "Verified bytes that clients received from peers instead of the upstream.",
        "spegel_mirror_unverified_bytes_total":
            "Bytes that clients received from peers without verification, as ranges.",
        "spegel_mirror_served_bytes_total": "Bytes of local content given to peers.",
        "spegel_mirror_received_bytes_total": "Bytes of bodies received from peers, with those of failed attempts.",
        "spegel_mirror_client_disconnects_total": "Requests whose client disconnected before the end of the response.",
        "spegel_mirror_shared_requests_total": "Requests served by the transfer of another request.",
        "spegel_mirror_transfers_inflight": "Bodies being relayed from peers.",
        // Stages of a transfer.
        "spegel_resolve_duration_seconds": "Time until the first peer was found, or the lookup ended without one.",
        "spegel_mirror_peer_dial_seconds": "Time to open a connection to a peer, successful or not.",
        "spegel_mirror_peer_first_byte_seconds": "Time from the request to a peer to the head of its response.",
        "spegel_mirror_body_seconds": "Time from the first peer's response to the end of the verified body.",
        "spegel_mirror_lookups_total": "Lookups of providers, by how they ended.",
        "spegel_mirror_peer_requests_total": "Requests sent to peers.",
        "spegel_mirror_peer_failures_total": "Requests to peers that failed, by reason.",
        "spegel_mirror_hedges_total": "Requests to a further peer while another had not responded yet.",
        "spegel_mirror_resumes_total": "Transfers that were truncated and resumed at the exact byte.",
        "spegel_mirror_verifications_total": "Bodies relayed from peers, by the result of verifying their digest.",
        // Content that no node holds yet.
        "spegel_cold_start_claims_total": "Claims of content that no node holds yet, by what they came to.",
        "spegel_cold_start_leads_total": "Contents that this node fetched from the upstream for all, by how it ended.",
        "spegel_cold_start_follows_total":
            "Contents that this node streamed from another that was fetching them, by how it ended; complete ones are copies saved.",
        "spegel_cold_start_contents": "Contents that this node has claimed and not received yet.",
        "spegel_cold_start_hand_overs_total": "Claims of nodes whose parent had failed.",
        "spegel_cold_start_served_bytes_total": "Bytes given to peers of content that had not arrived as a whole.",
        "spegel_cold_start_wait_seconds":
            "Time from a request to the head of the response of the peer that it follows.",
        // The router and what is advertised.
        "spegel_build_info": "The version and commit; the value is 1.",
        "spegel_ready": "Whether the node is ready, as /readyz has it.",
        "spegel_router_known_peers": "Nodes in the routing table.",
        "spegel_router_connected_peers": "Nodes in the routing table that a connection is open to.",
        "spegel_router_own_records": "Keys that this node announces.",
        "spegel_router_kept_records": "Provider records of other nodes that this node keeps.",
        "spegel_advertised_images": "Images whose content is advertised.",
        "spegel_advertised_image_tags": "Tags that are advertised.",
        "spegel_advertised_image_digests": "Digests of images that are advertised.",
        "spegel_advertised_content_digests": "Digests of content that are advertised.",
        "spegel_advertised_keys": "Keys that are advertised, tags and digests together.",
        "spegel_advertise_failures_total": "Batches of keys that the router did not accept.",
        "spegel_advertise_corrections_total": "Keys whose advertisement was corrected by a comparison with the store.",
        // The HTTP server of the registry.
        "http_request_duration_seconds": "Time from the end of a request's head to the end of the response.",
        "http_response_size_bytes": "Size of response bodies.",
        "http_requests_inflight": "Requests being answered.",
        // The store in containerd.
        "spegel_containerd_connected": "Whether containerd answers.",
        "spegel_containerd_lost_connections": "How often the connection to containerd was lost.",
        "spegel_containerd_reconciliations": "How often containerd's content was listed.",
        "spegel_containerd_indexed": "Whether containerd's content has been listed since the last connection.",
        "spegel_containerd_content_path_readable": "Whether content is read from containerd's directory directly.",
        "spegel_containerd_images": "Images in containerd.",
        "spegel_containerd_contents": "Contents in containerd.",
        "spegel_containerd_content_bytes": "Bytes of the contents in containerd.",
    ]

    /// Sets the help texts in a registry.
    static func describe(in registry: PrometheusRegistry) {
        for (name, text) in help { registry.describe(name, help: text) }
    }
}
