import NIOCore

/// When to look for somebody to join, and what the outcome means.
struct BootstrapSchedule: Sendable {
    /// How one round ended.
    enum Outcome: Equatable, Sendable {
        /// This many candidates are connected.
        case connected(Int)
        /// The only candidates were this node.
        case onlySelf
        /// Candidates could not be had, or none could be connected to.
        case failed(String)
    }

    /// The wait after the first round in vain, and the longest; it doubles in between.
    static let firstRetry: TimeAmount = .milliseconds(50)
    static let longestRetry: TimeAmount = .seconds(10)
    /// Between rounds while connected: an independent source of peers, should those we know have turned on us.
    static let whileOnline: TimeAmount = .minutes(30)
    /// Rounds that must agree before a node believes that it is alone: when a cluster starts, the list of nodes fills
    /// within moments.
    static let roundsUntilAlone = 3

    private var failures = 0
    private var roundsAlone = 0
    private var random: SplitMix64

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
    }

    /// Whether the node is, as far as its bootstrap source tells, a cluster of one.
    var isAlone: Bool { roundsAlone >= Self.roundsUntilAlone }

    /// Notes how a round ended.
    ///
    /// - Parameter isOnline: Whether the node has peers now, from whatever side the connections were made.
    /// - Returns: How long to wait before the next round.
    mutating func roundEnded(_ outcome: Outcome, isOnline: Bool) -> TimeAmount {
        roundsAlone = outcome == .onlySelf && !isOnline ? roundsAlone + 1 : 0
        if isOnline {
            failures = 0
            return .nanoseconds(random.jittered(Self.whileOnline.nanoseconds, spread: 0.1))
        }
        let wait = min(Self.longestRetry.nanoseconds, Self.firstRetry.nanoseconds << Int64(min(failures, 20)))
        failures += 1
        return .nanoseconds(random.jittered(wait, spread: 0.2))
    }

    /// The node came online between rounds.
    ///
    /// - Returns: How long to wait before the next round.
    mutating func cameOnline() -> TimeAmount { roundEnded(.connected(1), isOnline: true) }

    /// The last peer was lost.
    ///
    /// - Returns: How long to wait before the next round.
    mutating func wentOffline() -> TimeAmount {
        failures = 0
        return roundEnded(.failed("connectivity lost"), isOnline: false)
    }
}
