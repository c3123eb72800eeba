import Metrics

/// The metrics of cold starts.
struct ColdStartMetrics: Sendable {
    /// What a claim came to.
    enum Claim: String, CaseIterable, Sendable {
        case lead, follow, unknown
        /// Nothing was claimed: the store is not receiving the content.
        case notFetching = "not_fetching"
    }

    private let claims: [Claim: Counter]
    private let leads: [ArrivalWatch.Outcome: Counter]
    private let follows: [ArrivalWatch.Outcome: Counter]
    /// Claims of nodes whose parent had failed.
    let handOvers: Counter
    /// Bytes that were given to peers before the content was complete.
    let servedBytes: Counter
    /// Time from the request to the first byte of a parent.
    let wait: Metrics.Timer

    init(factory: any MetricsFactory) {
        claims = factory.counters("spegel_cold_start_claims_total", "outcome", Claim.self)
        leads = factory.counters("spegel_cold_start_leads_total", "outcome", ArrivalWatch.Outcome.self)
        follows = factory.counters("spegel_cold_start_follows_total", "outcome", ArrivalWatch.Outcome.self)
        handOvers = Counter(label: "spegel_cold_start_hand_overs_total", factory: factory)
        servedBytes = Counter(label: "spegel_cold_start_served_bytes_total", factory: factory)
        wait = Metrics.Timer(label: "spegel_cold_start_wait_seconds", factory: factory)
    }

    func claimed(_ outcome: Claim) { claims[outcome]?.increment() }

    /// Content that was claimed has arrived, or not. A follow that is complete is an upstream copy avoided.
    func ended(_ outcome: ArrivalWatch.Outcome, isLeader: Bool) {
        (isLeader ? leads : follows)[outcome]?.increment()
    }
}
