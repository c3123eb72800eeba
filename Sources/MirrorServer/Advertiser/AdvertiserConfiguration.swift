import OCIDistribution

/// How an ``Advertiser`` works, with its bounds.
public struct AdvertiserConfiguration: Sendable {
    /// Which references are advertised.
    public var filter: ReferenceFilter = .all
    /// Most keys given to the router at once.
    public var batchKeys = 512
    /// How long changes are gathered before they are given to the router.
    public var batchDelay: Duration = .milliseconds(50)
    /// How often what is advertised is compared with what is present.
    public var reconcileInterval: Duration = .seconds(300)
    /// How long to wait after the router refused keys before they are offered again. Doubles up to
    /// ``reconcileInterval``.
    public var retryDelay: Duration = .seconds(1)

    /// The defaults: everything is advertised.
    public init() {}
}
