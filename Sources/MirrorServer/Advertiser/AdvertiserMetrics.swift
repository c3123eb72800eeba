import ContentStore
import Metrics
import OCIDistribution

/// The gauges of what is advertised, by registry. Registries beyond a hundred are counted as `other`.
struct AdvertiserMetrics: Sendable {
    private static let registryLimit = 100
    private static let names = [
        "spegel_advertised_images", "spegel_advertised_image_tags", "spegel_advertised_image_digests",
        "spegel_advertised_content_digests", "spegel_advertised_keys",
    ]

    private let factory: any MetricsFactory
    private var gauges: [String: [Meter]] = [:]
    let failures: Counter
    let corrections: Counter

    init(factory: any MetricsFactory) {
        self.factory = factory
        failures = Counter(label: "spegel_advertise_failures_total", factory: factory)
        corrections = Counter(label: "spegel_advertise_corrections_total", factory: factory)
    }

    /// Counts what is advertised.
    mutating func update(_ set: AdvertisedSet, advertised: Set<String>) {
        var counts: [String: [Int]] = [:]
        func count(_ registry: String, _ index: Int) { counts[registry, default: [0, 0, 0, 0, 0]][index] += 1 }
        for (key, value) in set.keys where advertised.contains(key) {
            if value.isTag {
                count(value.registry, 1)
            } else {
                count(value.registry, 3)
                if value.isImage { count(value.registry, 2) }
            }
            count(value.registry, 4)
        }
        for image in set.storedImages where advertised.contains(image.target.digest.description) {
            count(image.reference.registry, 0)
        }
        var byLabel: [String: [Int]] = [:]
        for (registry, values) in counts.sorted(by: { $0.key < $1.key }) {
            let isKnown = gauges[registry] != nil || gauges.count < Self.registryLimit
            let label = isKnown ? registry : "other"
            if gauges[label] == nil {
                gauges[label] = Self.names.map {
                    Meter(label: $0, dimensions: [("registry", label)], factory: factory)
                }
            }
            byLabel[label] = zip(byLabel[label] ?? [0, 0, 0, 0, 0], values).map(+)
        }
        for (label, meters) in gauges {
            for (meter, value) in zip(meters, byLabel[label] ?? [0, 0, 0, 0, 0]) { meter.set(value) }
        }
    }
}
