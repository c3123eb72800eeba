import NIOConcurrencyHelpers
import NIOCore
import Synchronization

/// Measures the scheduling delay of the event loops and the executor.
///
/// A probe passes through every event loop in use and the task executor, again ``interval`` after the last one returned.
/// What a probe is late by is time in which a peer's answer may have been there, unread.
///
/// A value type without I/O: report when probes begin and return.
struct StallDetector: Sendable {
    /// The pause between two probes. A deadline shorter than this still sees one whole probe.
    static let interval: TimeAmount = .milliseconds(5)

    /// The time stalled up to the last probe that returned.
    private(set) var counted: TimeAmount = .zero
    /// When the probe under way was, or the next one is, to begin; nil while none is sent.
    private(set) var due: NIODeadline?

    /// Whether probes are sent.
    var isRunning: Bool { due != nil }

    /// Starts measuring; a probe is to be sent at `first`.
    mutating func start(first: NIODeadline) {
        if due == nil { due = first }
    }

    /// The probe has passed everything.
    ///
    /// - Returns: when to send the next one.
    mutating func probeReturned(now: NIODeadline) -> NIODeadline {
        if let due, now > due { counted = counted + (now - due) }
        let next = now + Self.interval
        due = next
        return next
    }

    /// No more probes are sent, because no clock is in use.
    mutating func stop() { due = nil }

    /// The time stalled up to `now`, including that of a probe that is under way or late.
    func stalled(now: NIODeadline) -> TimeAmount { Self.stalled(counted: counted, due: due, now: now) }

    static func stalled(counted: TimeAmount, due: NIODeadline?, now: NIODeadline) -> TimeAmount {
        guard let due, now > due else { return counted }
        return counted + (now - due)
    }
}

/// How much stalled time one request is granted: at most ``limit`` in total, so that every deadline ends.
struct StallAllowance: Sendable {
    /// The most that is granted in the whole life of a request.
    let limit: TimeAmount
    private let before: TimeAmount

    /// - Parameter before: the time stalled before the request began.
    init(before: TimeAmount, limit: TimeAmount) {
        self.before = before
        self.limit = limit
    }

    /// The request's own time at `now`.
    func time(now: NIODeadline, stalled: TimeAmount) -> NIODeadline {
        now - min(max(stalled - before, .zero), limit)
    }
}

/// Sends the probes of a ``StallDetector`` while at least one ``StallAdjustedClock`` is in use.
final class StallMonitor: Sendable {
    private struct User {
        var loop: any EventLoop
        var count: Int
    }

    private struct State {
        var detector = StallDetector()
        /// The event loops with a clock in use; probes pass through these.
        var users: [ObjectIdentifier: User] = [:]
    }

    private let state = NIOLockedValueBox(State())
    // What the detector says, to be read without the lock: each request asks a dozen times.
    private let counted = Synchronization.Atomic<Int64>(0)
    private let due = Synchronization.Atomic<UInt64>(.max)

    /// The time stalled up to `now`.
    ///
    /// Between the two writes of ``publish(_:)`` a stall counts twice, so that a deadline may come late by it.
    func stalled(now: NIODeadline) -> TimeAmount {
        let due = due.load(ordering: .acquiring)
        return StallDetector.stalled(
            counted: .nanoseconds(counted.load(ordering: .relaxed)),
            due: due == .max ? nil : .uptimeNanoseconds(due), now: now)
    }

    private func publish(_ detector: StallDetector) {
        counted.store(detector.counted.nanoseconds, ordering: .relaxed)
        due.store(detector.due?.uptimeNanoseconds ?? .max, ordering: .releasing)
    }

    /// A clock is in use on this event loop.
    fileprivate func register(_ eventLoop: any EventLoop) {
        // After the usual pause: most requests have ended by then, and cost no probe.
        let first = NIODeadline.now() + StallDetector.interval
        let starts = state.withLockedValue { state in
            state.users[ObjectIdentifier(eventLoop), default: User(loop: eventLoop, count: 0)].count += 1
            guard !state.detector.isRunning else { return false }
            state.detector.start(first: first)
            publish(state.detector)
            return true
        }
        if starts { eventLoop.scheduleTask(deadline: first) { self.sendProbe() } }
    }

    /// The clock that ``register(_:)`` was called for is no longer in use.
    fileprivate func unregister(_ eventLoop: any EventLoop) {
        let key = ObjectIdentifier(eventLoop)
        state.withLockedValue { state in
            state.users[key]?.count -= 1
            if state.users[key]?.count == 0 { state.users[key] = nil }
        }
    }

    /// Sends a probe through all event loops side by side, and then through the executor.
    private func sendProbe() {
        let loops = state.withLockedValue { state in state.users.values.map(\.loop) }
        guard !loops.isEmpty else { return probeReturned() }
        let probe = Probe(loops.count)
        for loop in loops {
            loop.execute {
                if probe.passed() { Task { self.probeReturned() } }
            }
        }
    }

    private final class Probe: Sendable {
        private let missing: Synchronization.Atomic<Int>

        init(_ count: Int) { missing = .init(count) }

        /// Returns whether this was the last event loop.
        func passed() -> Bool { missing.subtract(1, ordering: .relaxed).newValue == 0 }
    }

    private func probeReturned() {
        let now = NIODeadline.now()
        let next = state.withLockedValue { state -> (NIODeadline, any EventLoop)? in
            defer { publish(state.detector) }
            let due = state.detector.probeReturned(now: now)
            guard let user = state.users.values.first else {
                state.detector.stop()
                return nil
            }
            return (due, user.loop)
        }
        guard let (due, loop) = next else { return }
        loop.scheduleTask(deadline: due) { self.sendProbe() }
    }
}

/// The clock of one request or dial. It stands still while this process is stalled, for at most the allowance in total:
/// its deadlines bound how long the network and the peers are waited for, not how long this process takes to run.
///
/// Confined to its event loop.
final class StallAdjustedClock {
    /// The least that a timer waits: while the clock stands still, checking it continuously is of no use.
    static let shortestWait: TimeAmount = .milliseconds(1)

    let eventLoop: any EventLoop
    /// The timers of the event loop.
    let timers: EventLoopTimers
    private let monitor: StallMonitor
    private let allowance: StallAllowance

    init(_ monitor: StallMonitor, timers: EventLoopTimers, allowance: TimeAmount) {
        self.monitor = monitor
        self.timers = timers
        eventLoop = timers.eventLoop
        self.allowance = StallAllowance(before: monitor.stalled(now: .now()), limit: allowance)
        if timers.clockStarted() { monitor.register(eventLoop) }
    }

    deinit { if timers.clockEnded() { monitor.unregister(eventLoop) } }

    /// The present moment.
    var now: NIODeadline {
        let now = NIODeadline.now()
        return allowance.time(now: now, stalled: monitor.stalled(now: now))
    }

    /// A timer whose deadline is `duration` from now.
    func timer(in duration: Duration, _ action: @escaping () -> Void) -> DeadlineTimer {
        let timer = DeadlineTimer(clock: self, action: action)
        timer.set(now + TimeAmount(duration))
        return timer
    }
}
