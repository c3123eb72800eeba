import NIOConcurrencyHelpers
import NIOCore
import Synchronization

/// Measures, while somebody wants to know, how much time this process loses because it is not scheduled or its event
/// loops and executor are busy; see ``LagMeter``. Nothing runs while nobody wants to know.
final class ResponsiveClock: Sendable {
    private struct User {
        var loop: any EventLoop
        var count: Int
    }

    private struct State {
        var meter = LagMeter()
        /// The event loops on which somebody wants to know: only through them a pulse goes.
        var users: [ObjectIdentifier: User] = [:]
    }

    private let state = NIOLockedValueBox(State())

    /// All time lost up to `now`.
    func lost(now: NIODeadline) -> TimeAmount { state.withLockedValue { $0.meter.lost(now: now) } }

    /// Somebody on this event loop wants to know. Returns the time lost before.
    func enter(on eventLoop: any EventLoop) -> TimeAmount {
        let now = NIODeadline.now()
        // After the usual pause: most requests have ended by then, and cost no pulse.
        let first = now + LagMeter.interval
        let (before, starts) = state.withLockedValue { state -> (TimeAmount, Bool) in
            state.users[ObjectIdentifier(eventLoop), default: User(loop: eventLoop, count: 0)].count += 1
            let starts = !state.meter.isRunning
            if starts { state.meter.start(first: first) }
            return (state.meter.lost(now: now), starts)
        }
        if starts { eventLoop.scheduleTask(deadline: first) { self.sendPulse() } }
        return before
    }

    /// Somebody no longer wants to know.
    func leave(_ eventLoop: any EventLoop) {
        let key = ObjectIdentifier(eventLoop)
        state.withLockedValue { state in
            state.users[key]?.count -= 1
            if state.users[key]?.count == 0 { state.users[key] = nil }
        }
    }

    /// A pulse goes through all event loops side by side, and then through the executor.
    private func sendPulse() {
        let loops = state.withLockedValue { state in state.users.values.map(\.loop) }
        guard !loops.isEmpty else { return pulseReturned() }
        let pulse = Pulse(loops.count)
        for loop in loops {
            loop.execute {
                if pulse.passed() { Task { self.pulseReturned() } }
            }
        }
    }

    private final class Pulse: Sendable {
        private let missing: Synchronization.Atomic<Int>

        init(_ count: Int) { missing = .init(count) }

        /// Returns whether it was the last event loop.
        func passed() -> Bool { missing.subtract(1, ordering: .relaxed).newValue == 0 }
    }

    private func pulseReturned() {
        let now = NIODeadline.now()
        let next = state.withLockedValue { state -> (NIODeadline, any EventLoop)? in
            let due = state.meter.pulseReturned(now: now)
            guard let user = state.users.values.first else {
                state.meter.stop()
                return nil
            }
            return (due, user.loop)
        }
        guard let (due, loop) = next else { return }
        loop.scheduleTask(deadline: due) { self.sendPulse() }
    }
}

/// The time as one request counts it: it stands still while this process could not act, up to an allowance.
///
/// Deadlines that are set and looked at by this clock bound how long others are waited for, not how long this node
/// takes. Confined to its event loop.
final class RequestClock {
    /// The least that a timer waits: while the clock stands still there is no use in looking at it all the time.
    static let shortestWait: TimeAmount = .milliseconds(1)

    private let shared: ResponsiveClock
    private let eventLoop: any EventLoop
    private var allowance: LagAllowance

    init(_ shared: ResponsiveClock, on eventLoop: any EventLoop, allowance: TimeAmount) {
        self.shared = shared
        self.eventLoop = eventLoop
        self.allowance = LagAllowance(before: shared.enter(on: eventLoop), limit: allowance)
    }

    deinit { shared.leave(eventLoop) }

    /// The request's present moment.
    var now: NIODeadline {
        let now = NIODeadline.now()
        return allowance.time(now: now, lost: shared.lost(now: now))
    }

    /// The request has got on: the allowance begins anew.
    func renew() { allowance.renew(lost: shared.lost(now: .now())) }

    /// A deadline after which `action` is called once, on the event loop, unless it is cancelled before.
    func timer(
        in duration: TimeAmount, on eventLoop: any EventLoop, _ action: @escaping @Sendable () -> Void
    ) -> RequestTimer {
        RequestTimer(clock: self, deadline: now + duration, eventLoop: eventLoop, action: action)
    }
}

/// A deadline by a ``RequestClock``. Confined to its event loop.
final class RequestTimer {
    private let clock: RequestClock
    private let deadline: NIODeadline
    private let eventLoop: any EventLoop
    private var action: (@Sendable () -> Void)?
    private var scheduled: Scheduled<Void>?

    fileprivate init(
        clock: RequestClock, deadline: NIODeadline, eventLoop: any EventLoop, action: @escaping @Sendable () -> Void
    ) {
        self.clock = clock
        self.deadline = deadline
        self.eventLoop = eventLoop
        self.action = action
        schedule()
    }

    func cancel() {
        action = nil
        scheduled?.cancel()
        scheduled = nil
    }

    private func schedule() {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let wait = max(deadline - clock.now, RequestClock.shortestWait)
        scheduled = eventLoop.scheduleTask(in: wait) { bound.value.fired() }
    }

    private func fired() {
        guard let action else { return }
        // Time was lost meanwhile: as much is waited for again.
        guard clock.now >= deadline else { return schedule() }
        cancel()
        action()
    }
}
