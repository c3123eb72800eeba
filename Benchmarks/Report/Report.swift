import Foundation
import Histogram

/// The outcome of a whole run, as `--json` writes it.
struct Report: Codable {
    /// The version of this document's form; raised when a field changes its meaning.
    var form = 1
    var date: Date
    var machine: Machine
    /// The settings that the figures depend on, by their option's name.
    var settings: [String: String]
    var suites: [SuiteReport] = []

    var budgets: [Budget] { suites.flatMap(\.budgets) }
    /// A budget that is not met, or a suite that did not end.
    var failed: Bool { suites.contains { $0.error != nil } || budgets.contains { $0.status == .failed } }
}

/// What one suite measured.
struct SuiteReport: Codable {
    var name: String
    var title: String
    /// How it was measured, in sentences.
    var notes: [String] = []
    var sections: [Section] = []
    var budgets: [Budget] = []
    /// Why the suite did not end.
    var error: String?
    var seconds = 0.0

    init(_ suite: Suite) {
        name = suite.rawValue
        title = suite.title
    }
}

/// One comparison: a table, and a plot of its first figure.
struct Section: Codable {
    var title: String
    /// The unit of ``Measurement/figure``.
    var unit: String
    var higherIsBetter = true
    /// The unit of ``Measurement/cpu``.
    var cpuUnit = ""
    /// The contender that the others are compared with.
    var baseline: String?
    var measurements: [Measurement] = []

    /// How a measurement's figure relates to the baseline's of the same group, paired by round.
    func ratio(of measurement: Measurement) -> Double? {
        guard let baseline, measurement.name != baseline,
            let other = measurements.first(where: { $0.name == baseline && $0.group == measurement.group })
        else { return nil }
        return measurement.figure.ratio(to: other.figure)
    }
}

/// The figures of one contender in one situation.
struct Measurement: Codable {
    /// The contender.
    var name: String
    /// The situation, such as the number of connections.
    var group = ""
    var figure: Summary
    /// Processor time of the contender's processes for each unit of work.
    var cpu: Summary?
    /// The most memory its processes had resident at one time, summed, in MiB.
    var peakMiB: Double?
    /// Further columns, in order.
    var values: [Value] = []

    struct Value: Codable {
        var name: String
        var value: Double
        var unit: String
        var places = 0
    }
}

/// The samples of some rounds.
struct Summary: Codable {
    /// In the order of the rounds.
    var samples: [Double]

    init(_ samples: [Double]) { self.samples = samples }

    var min: Double { samples.min() ?? 0 }
    var max: Double { samples.max() ?? 0 }
    var median: Double { samples.median }
    /// Whether the rounds differ so much that the median says little: the largest is more than 1.3 times the smallest.
    var isWide: Bool { samples.count > 1 && max > min * 1.3 }

    /// The median of the ratios of the rounds.
    func ratio(to other: Summary) -> Double {
        zip(samples, other.samples).map { $0 / Swift.max($1, .leastNonzeroMagnitude) }.median
    }

    private enum CodingKeys: String, CodingKey { case samples, min, median, max }

    init(from decoder: any Decoder) throws {
        samples = try decoder.container(keyedBy: CodingKeys.self).decode([Double].self, forKey: .samples)
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(samples, forKey: .samples)
        try container.encode(min, forKey: .min)
        try container.encode(median, forKey: .median)
        try container.encode(max, forKey: .max)
    }
}

/// A budget of the project's design, and whether it is met.
struct Budget: Codable {
    enum Status: String, Codable { case met, failed, notMeasured = "not measured" }

    var name: String
    var requirement: String
    var measured: String
    var status: Status

    /// - Parameters:
    ///   - met: nil if it was not measured; `measured` says why.
    ///   - always: whether a debug build has to meet it too.
    init(_ name: String, _ requirement: String, measured: String, met: Bool?, always: Bool = false) {
        self.name = name
        self.requirement = requirement
        // What a debug build takes says nothing about the budget.
        let counts = met != nil && !(Machine.isDebugBuild && !always)
        self.measured = met != nil && !counts ? "\(measured) (debug build: not judged)" : measured
        status = counts ? (met == true ? .met : .failed) : .notMeasured
    }
}

/// Latencies in a histogram of three significant digits, from 1 µs to 10 minutes; what is longer counts as 10 minutes.
struct Latencies {
    private static let longest: UInt64 = 600_000_000
    private var histogram = Histogram<UInt32>(highestTrackableValue: longest, numberOfSignificantValueDigits: .three)

    var count: Int { Int(histogram.totalCount) }

    mutating func record(_ duration: Duration) {
        let parts = duration.components
        let microseconds = Double(parts.seconds) * 1e6 + Double(parts.attoseconds) / 1e12
        histogram.record(UInt64(Swift.min(Swift.max(microseconds, 1), Double(Self.longest))))
    }

    /// - Parameter percentile: from 0 to 100.
    func milliseconds(_ percentile: Double) -> Double {
        count == 0 ? 0 : Double(histogram.valueAtPercentile(percentile)) / 1000
    }

    /// The usual columns.
    var values: [Measurement.Value] {
        [50, 99, 99.9, 100].map { percentile in
            let name = percentile == 100 ? "max" : "p" + (percentile == 99.9 ? "99.9" : "\(Int(percentile))")
            return .init(name: name, value: milliseconds(percentile), unit: "ms", places: 2)
        }
    }
}
