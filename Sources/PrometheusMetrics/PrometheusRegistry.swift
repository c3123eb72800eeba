import Metrics
import Synchronization

/// Collects metrics given through swift-metrics and writes them in the Prometheus text format.
///
/// Counters become counters whose names end in `_total`; timers become histograms in seconds whose names end in
/// `_seconds`; recorders become histograms, or gauges when they do not aggregate; meters become gauges. The number of
/// series of a family is bounded by ``seriesLimit``: further ones are counted together with `other` for every label.
public final class PrometheusRegistry: MetricsFactory {
    /// Most series of one family: enough for the registries that are told apart, each with all reasons of a miss.
    public static let seriesLimit = 2000
    /// Most families.
    public static let familyLimit = 1000
    /// Buckets of times, in seconds.
    public static let secondsBuckets: [Double] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
    ]
    /// Buckets of sizes, in bytes.
    public static let bytesBuckets: [Double] = [
        256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456,
        1_073_741_824, 4_294_967_296,
    ]

    private enum Kind: String {
        case counter, gauge, histogram
    }

    private enum Series {
        case number(PrometheusNumber)
        case histogram(PrometheusHistogram)
        case computed(@Sendable () -> Double)
    }

    private struct LabelSet: Hashable {
        var flat: [String]
        init(_ labels: [(String, String)]) { flat = labels.flatMap { [$0.0, $0.1] } }
        var labels: [(String, String)] {
            stride(from: 0, to: flat.count, by: 2).map { (flat[$0], flat[$0 + 1]) }
        }
    }

    private struct Family {
        var kind: Kind
        var help: String
        var series: [LabelSet: Series] = [:]
    }

    private struct State {
        var families: [String: Family] = [:]
        var help: [String: String] = [:]
        var buckets: [String: [Double]] = [:]
        var collectors: [@Sendable () async -> Void] = []
    }

    private let state = Mutex(State())

    /// A registry without metrics.
    public init() {}

    /// Sets the help text of a metric, and the bucket bounds of a histogram. Call it before the metric is made.
    ///
    /// - Parameters:
    ///   - name: the full name, as it is exposed.
    ///   - help: what it measures.
    ///   - buckets: upper bounds, ascending, without the infinite one; nil for the default.
    public func describe(_ name: String, help: String, buckets: [Double]? = nil) {
        state.withLock { state in
            state.help[name] = help
            state.families[name]?.help = help
            if let buckets { state.buckets[name] = buckets.filter(\.isFinite).sorted() }
        }
    }

    /// Exposes a gauge whose value is computed when it is read.
    public func gauge(
        _ name: String, labels: [(String, String)] = [], value: @escaping @Sendable () -> Double
    ) {
        _ = series(name, .gauge, labels) { .computed(value) }
    }

    /// Exposes a counter whose value is computed when it is read. The name has to end in `_total`.
    public func counter(
        _ name: String, labels: [(String, String)] = [], value: @escaping @Sendable () -> Double
    ) {
        _ = series(name, .counter, labels) { .computed(value) }
    }

    /// All metrics in the text format 0.0.4, families and series in a fixed order.
    public func text() -> [UInt8] { text(.prometheus) }

    /// Adds an action that brings metrics up to date before they are read for a page; see ``collect()``.
    public func addCollector(_ action: @escaping @Sendable () async -> Void) {
        state.withLock { $0.collectors.append(action) }
    }

    /// Runs the collectors, one after the other.
    package func collect() async {
        for action in state.withLock({ $0.collectors }) { await action() }
    }

    /// The names of all families, as they are exposed.
    package var familyNames: [String] { state.withLock { $0.families.keys.sorted() } }

    /// All metrics in a text form, families and series in a fixed order.
    package func text(_ format: PrometheusText.Format) -> [UInt8] {
        let families = state.withLock { state in
            state.families.map { (name: $0.key, family: $0.value) }
        }
        var text = PrometheusText(format: format)
        for (name, family) in families.sorted(by: { $0.name < $1.name }) {
            text.family(name, type: family.kind.rawValue, help: family.help)
            for (key, series) in family.series.sorted(by: { $0.key.flat.lexicographicallyPrecedes($1.key.flat) }) {
                write(name, key.labels, series, to: &text)
            }
        }
        text.finish()
        return text.bytes
    }

    private func write(_ name: String, _ labels: [(String, String)], _ series: Series, to text: inout PrometheusText) {
        switch series {
        case .number(let number):
            text.sample(name, labels: labels, value: PrometheusText.number(number.value))
        case .computed(let value):
            text.sample(name, labels: labels, value: PrometheusText.number(value()))
        case .histogram(let histogram):
            let (cumulative, sum) = histogram.snapshot
            for (bound, count) in zip(histogram.bounds, cumulative) {
                text.sample(
                    name + "_bucket", labels: labels, extra: ("le", text.bound(bound)), value: "\(count)")
            }
            let total = cumulative.last ?? 0
            text.sample(name + "_bucket", labels: labels, extra: ("le", "+Inf"), value: "\(total)")
            text.sample(name + "_sum", labels: labels, value: PrometheusText.number(sum))
            text.sample(name + "_count", labels: labels, value: "\(total)")
        }
    }

    /// The series, made if need be. One that does not fit (another kind, too many families) is not exposed.
    private func series(
        _ name: String, _ kind: Kind, _ labels: [(String, String)], make: ([Double]) -> Series
    ) -> Series {
        let name = PrometheusText.metricName(name)
        var labels = labels.map { (PrometheusText.labelName($0.0), $0.1) }.sorted { $0.0 < $1.0 }
        // A repeated label would make the whole page unreadable; the first one counts.
        labels = labels.enumerated().filter { $0.offset == 0 || labels[$0.offset - 1].0 != $0.element.0 }.map(\.element)
        return state.withLock { state in
            let buckets = state.buckets[name] ?? (name.hasSuffix("_bytes") ? Self.bytesBuckets : Self.secondsBuckets)
            if state.families[name] == nil {
                guard state.families.count < Self.familyLimit else { return make(buckets) }
                state.families[name] = Family(
                    kind: kind, help: state.help[name] ?? Self.defaultHelp(for: name))
            }
            guard let family = state.families[name], family.kind == kind else { return make(buckets) }
            var key = LabelSet(labels)
            if let series = family.series[key] { return series }
            if family.series.count >= Self.seriesLimit - 1 {
                key = LabelSet(labels.map { ($0.0, "other") })
                if let series = family.series[key] { return series }
            }
            let series = make(buckets)
            state.families[name]?.series[key] = series
            return series
        }
    }

    private func series(
        _ name: String, _ kind: Kind, _ labels: [(String, String)], make: () -> Series
    ) -> Series {
        series(name, kind, labels) { (_: [Double]) in make() }
    }

    private func number(_ name: String, _ kind: Kind, _ labels: [(String, String)]) -> PrometheusNumber {
        if case .number(let number) = series(name, kind, labels, make: { .number(PrometheusNumber()) }) {
            return number
        }
        return PrometheusNumber()
    }

    private func histogram(_ name: String, _ labels: [(String, String)]) -> PrometheusHistogram {
        let series = series(name, .histogram, labels) { .histogram(PrometheusHistogram(bounds: $0)) }
        if case .histogram(let histogram) = series { return histogram }
        return PrometheusHistogram(bounds: [])
    }

    /// The help text of a metric that was not described: its name in words.
    private static func defaultHelp(for name: String) -> String {
        name.split(separator: "_").joined(separator: " ") + "."
    }

    private func name(_ label: String, endingIn suffix: String) -> String {
        label.hasSuffix(suffix) ? label : label + suffix
    }

    // MARK: MetricsFactory

    /// A counter; its name gets `_total` if it lacks it.
    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        number(name(label, endingIn: "_total"), .counter, dimensions)
    }

    /// A counter of fractions; its name gets `_total` if it lacks it.
    public func makeFloatingPointCounter(
        label: String, dimensions: [(String, String)]
    ) -> any FloatingPointCounterHandler {
        number(name(label, endingIn: "_total"), .counter, dimensions)
    }

    /// A gauge.
    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        number(label, .gauge, dimensions)
    }

    /// A histogram, or a gauge if it does not aggregate.
    public func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        aggregate
            ? PrometheusHistogramRecorder(histogram(label, dimensions))
            : PrometheusGaugeRecorder(number(label, .gauge, dimensions))
    }

    /// A histogram in seconds; its name gets `_seconds` if it lacks it.
    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        PrometheusHistogramRecorder(histogram(name(label, endingIn: "_seconds"), dimensions))
    }

    /// Does nothing: series stay for as long as the registry lives, as their number is bounded.
    public func destroyCounter(_ handler: any CounterHandler) {}
    /// Does nothing; see ``destroyCounter(_:)``.
    public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    /// Does nothing; see ``destroyCounter(_:)``.
    public func destroyMeter(_ handler: any MeterHandler) {}
    /// Does nothing; see ``destroyCounter(_:)``.
    public func destroyRecorder(_ handler: any RecorderHandler) {}
    /// Does nothing; see ``destroyCounter(_:)``.
    public func destroyTimer(_ handler: any TimerHandler) {}
}

/// A number that goes up, or up and down, as one series of a family.
final class PrometheusNumber: Sendable {
    private let bits: Atomic<UInt64>

    init(_ value: Double = 0) { bits = Atomic(value.bitPattern) }

    var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

    func store(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

    func add(_ amount: Double) {
        var old = bits.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + amount).bitPattern
            let (exchanged, original) = bits.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = original
        }
    }
}

/// Observations counted in buckets.
final class PrometheusHistogram: Sendable {
    struct State {
        var counts: [UInt64]
        var sum = 0.0
    }

    /// The upper bounds of the buckets, ascending, without the infinite one.
    let bounds: [Double]
    private let state: Mutex<State>

    init(bounds: [Double]) {
        self.bounds = bounds
        state = Mutex(State(counts: Array(repeating: 0, count: bounds.count + 1)))
    }

    func observe(_ value: Double) {
        let bucket = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLock { state in
            state.counts[bucket] += 1
            state.sum += value
        }
    }

    /// Cumulative counts with the infinite bucket last, and the sum of all observations.
    var snapshot: (cumulative: [UInt64], sum: Double) {
        let state = state.withLock { $0 }
        var total: UInt64 = 0
        return (
            state.counts.map {
                total += $0; return total
            }, state.sum
        )
    }
}

extension PrometheusNumber: CounterHandler, FloatingPointCounterHandler, MeterHandler {
    // Counters only go up; a negative amount is ignored.
    func increment(by amount: Int64) { if amount > 0 { add(Double(amount)) } }
    func reset() { store(0) }
    func set(_ value: Int64) { store(Double(value)) }
    func set(_ value: Double) { store(value) }
    func increment(by amount: Double) { if amount.isFinite { add(amount) } }
    func decrement(by amount: Double) { if amount.isFinite { add(-amount) } }
}

/// A recorder whose last value counts.
final class PrometheusGaugeRecorder: RecorderHandler {
    private let number: PrometheusNumber
    init(_ number: PrometheusNumber) { self.number = number }
    func record(_ value: Int64) { number.store(Double(value)) }
    func record(_ value: Double) { number.store(value) }
}

/// A recorder or timer whose values are counted in buckets.
final class PrometheusHistogramRecorder: RecorderHandler, TimerHandler {
    private let histogram: PrometheusHistogram
    init(_ histogram: PrometheusHistogram) { self.histogram = histogram }
    func record(_ value: Int64) { histogram.observe(Double(value)) }
    func record(_ value: Double) { if !value.isNaN { histogram.observe(value) } }
    func recordNanoseconds(_ duration: Int64) { histogram.observe(Double(duration) / 1_000_000_000) }
}
