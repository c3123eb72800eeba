import Foundation
import Synchronization

/// What a soak has seen.
final class SoakLedger: Sendable {
    /// What must not happen.
    enum Violation: String, Codable, CaseIterable, Sendable {
        case wrongBytes = "wrong bytes"
        case falseNotFound = "false 404"
        case failedPull = "failed pull"
        case badStatus = "unexpected status"
        case ended = "daemon ended by itself"
        case notReady = "not ready again"
        case growth
    }

    /// What a daemon that is never replaced uses.
    struct Reading: Codable, Sendable {
        var second: Double
        var residentMiB: Double
        var descriptors: Int
        var threads: Int
        /// Keys that it advertises.
        var keys: Double
    }

    struct Summary: Codable {
        var seed: UInt64
        var seconds: Double
        var faults: [String: Int]
        var requests: [String: Int]
        var checkedMiB: Double
        var violations: [String: Int]
        /// The first of each kind.
        var examples: [String]
        /// What happened while a fault lasted, and is not counted.
        var excused: [String: Int]
        /// The first, middle and last of the readings of node 0.
        var readings: [Reading]
        var growth: String
        var held: Bool { violations.isEmpty }
    }

    private struct State {
        var faults: [String: Int] = [:]
        var requests: [String: Int] = [:]
        var checkedBytes = 0
        var violations: [String: Int] = [:]
        var examples: [String] = []
        var excused: [String: Int] = [:]
        var readings: [Reading] = []
    }

    private let seed: UInt64
    private let begin = ContinuousClock.now
    private let state = Mutex(State())

    init(seed: UInt64) { self.seed = seed }

    var second: Double { begin.duration(to: .now) / .seconds(1) }

    func count(fault: String, node: Int) {
        state.withLock { $0.faults[fault, default: 0] += 1 }
        print("\(second.text(1)) s: fault: \(fault) (node \(node))")
    }

    func count(request: String, bytes: Int = 0) {
        state.withLock { state in
            state.requests[request, default: 0] += 1
            state.checkedBytes += bytes
        }
    }

    /// - Parameter excused: whether it happened while a fault lasted that may lead to it.
    func report(_ violation: Violation, _ text: String, excused: Bool = false) {
        let line = "\(second.text(1)) s: \(violation.rawValue): \(text)"
        let isNew = state.withLock { state -> Bool in
            if excused {
                state.excused[violation.rawValue, default: 0] += 1
                return false
            }
            state.violations[violation.rawValue, default: 0] += 1
            // Enough to look into; the numbers count all.
            guard state.violations[violation.rawValue, default: 0] <= 5 else { return false }
            state.examples.append(line)
            return true
        }
        if isNew {
            print("VIOLATION \(line)")
            fflush(nil)
        }
    }

    func add(_ reading: Reading) { state.withLock { $0.readings.append(reading) } }

    /// One line for a long run's reader.
    var progress: String {
        state.withLock { state in
            let requests = state.requests.values.reduce(0, +)
            let last = state.readings.last
            return "\(second.text(0)) s: \(state.faults.values.reduce(0, +)) faults, \(requests) requests, "
                + "\(state.checkedBytes >> 20) MiB checked, \(state.violations.values.reduce(0, +)) violations; node 0: "
                + "\(last?.residentMiB.text(1) ?? "-") MiB, \(last?.descriptors ?? 0) descriptors, \(last?.threads ?? 0) threads"
        }
    }

    /// - Parameter seconds: a run that is shorter says nothing about growth.
    func summary(growthJudgedFrom seconds: Double) -> Summary {
        let length = second
        var growth = "not judged: shorter than \(seconds.text(0)) s"
        let readings = state.withLock { $0.readings }
        if length >= seconds, readings.count >= 8 {
            let found = Self.growth(readings)
            growth = found.isEmpty ? "none" : found.joined(separator: "; ")
            for text in found { report(.growth, text) }
        }
        return state.withLock { state in
            Summary(
                seed: seed, seconds: length, faults: state.faults, requests: state.requests,
                checkedMiB: Double(state.checkedBytes) / 1_048_576, violations: state.violations,
                examples: state.examples, excused: state.excused,
                readings: [state.readings.first, state.readings[safe: state.readings.count / 2], state.readings.last]
                    .compactMap { $0 }, growth: growth)
        }
    }

    /// Compares the second quarter of the time, when all is warm, with the last: by a quarter more and by more than what the
    /// allocator's moods are.
    private static func growth(_ readings: [Reading]) -> [String] {
        let quarter = readings.count / 4
        let (early, late) = (readings[quarter..<2 * quarter], readings.suffix(quarter))
        func check(_ name: String, _ slack: Double, _ value: (Reading) -> Double) -> String? {
            let (before, after) = (early.map(value).median, late.map(value).median)
            return after > before * 1.25 && after > before + slack
                ? "\(name) from \(before.text(1)) to \(after.text(1))" : nil
        }
        return [
            check("resident MiB", 8) { $0.residentMiB }, check("descriptors", 20) { Double($0.descriptors) },
            check("threads", 4) { Double($0.threads) }, check("advertised keys", 50) { $0.keys },
        ].compactMap { $0 }
    }
}

extension SoakLedger.Summary {
    var text: String {
        func list(_ counts: [String: Int]) -> String {
            counts.isEmpty
                ? "none" : counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        }
        let memory = readings.map {
            "\($0.residentMiB.text(1)) MiB, \($0.descriptors) descriptors, \($0.threads) threads"
        }
        return """

            \(held ? "HELD" : "DID NOT HOLD") for \(seconds.text(0)) s with --seed \(seed)
            faults: \(list(faults))
            requests: \(list(requests)); \(checkedMiB.text(0)) MiB compared
            violations: \(list(violations))
            during faults, not counted: \(list(excused))
            node 0 at the beginning, half-way, at the end: \(memory.joined(separator: " | "))
            growth: \(growth)
            """
    }
}

extension Array {
    fileprivate subscript(safe index: Int) -> Element? { indices.contains(index) ? self[index] : nil }
}
