import Metrics
import Synchronization

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
    // Counters only go up; an attempt to lower one is a mistake of the caller and is ignored.
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
