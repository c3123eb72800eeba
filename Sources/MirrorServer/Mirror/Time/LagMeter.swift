import NIOCore

/// Counts the time during which this process could not act, although it wanted to.
///
/// A pulse goes through everything that work here has to pass (the event loops and the task executor), again and again,
/// ``interval`` after the last one came back. What a pulse takes longer than it was meant to is time in which nothing
/// else got on either: an answer may have been there, unread, or a lookup may not have been begun.
///
/// A value type without I/O: tell it when pulses begin and return.
struct LagMeter: Sendable {
    /// The pause between two pulses. A deadline shorter than this still sees one whole pulse.
    static let interval: TimeAmount = .milliseconds(5)

    private var counted: TimeAmount = .zero
    /// When the pulse under way was, or the next one is, to begin; nil while there are none.
    private var due: NIODeadline?

    /// Whether there are pulses.
    var isRunning: Bool { due != nil }

    /// Begins to measure; a pulse is to be sent at `first`.
    mutating func start(first: NIODeadline) {
        if due == nil { due = first }
    }

    /// The pulse has been everywhere.
    ///
    /// - Returns: when to send the next one.
    mutating func pulseReturned(now: NIODeadline) -> NIODeadline {
        if let due, now > due { counted = counted + (now - due) }
        let next = now + Self.interval
        due = next
        return next
    }

    /// No more pulses are sent, because nobody asks for the time.
    mutating func stop() { due = nil }

    /// All time lost up to `now`, including that of a pulse that is under way or late.
    func lost(now: NIODeadline) -> TimeAmount {
        guard let due, now > due else { return counted }
        return counted + (now - due)
    }
}

/// How much of the time lost does not count for one request.
struct LagAllowance: Sendable {
    /// The most that is granted between two signs of progress, so that every deadline ends at last.
    let limit: TimeAmount
    /// What was lost before the request began, or before its last progress.
    private var before: TimeAmount
    /// What was granted up to then.
    private var granted: TimeAmount = .zero

    /// - Parameter before: what was lost before the request began.
    init(before: TimeAmount, limit: TimeAmount) {
        self.before = before
        self.limit = limit
    }

    /// The moment of the request's own time that is now.
    func time(now: NIODeadline, lost: TimeAmount) -> NIODeadline {
        now - granted - grant(lost)
    }

    /// The request has got on: as much as before may be granted again.
    mutating func renew(lost: TimeAmount) {
        granted = granted + grant(lost)
        before = lost
    }

    private func grant(_ lost: TimeAmount) -> TimeAmount { min(max(lost - before, .zero), limit) }
}
