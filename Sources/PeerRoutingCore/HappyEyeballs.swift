import NIOCore

/// Decides when each of a peer's addresses is dialled, after RFC 8305: one after the other, the next as soon as the last
/// one has failed or has taken ``attemptDelay``; the first that connects wins.
///
/// A value without I/O: call it with what happened, perform the actions it returns. An attempt is identified by its index
/// in the order of the addresses, for example that of ``interleaved(_:limit:)``.
package struct HappyEyeballs: Sendable {
    /// What is to be done.
    package enum Action: Sendable, Hashable {
        /// Dial the address with this index.
        case dial(Int)
        /// Drop this attempt, also if it has connected.
        case abandon(Int)
        /// Use this connection; the race is over.
        case use(Int)
        /// No address can be reached; the race is over.
        case fail

        package var isDial: Bool {
            if case .dial = self { true } else { false }
        }
    }

    private let count: Int
    private let attemptDelay: TimeAmount
    private var next = 0
    private var pending: Set<Int> = []
    private var nextAt: NIODeadline?
    private var isOver = false

    /// - Parameters:
    ///   - count: The number of addresses.
    ///   - attemptDelay: How long an attempt has before the next begins besides it (RFC 8305 §8 recommends 250 ms).
    package init(count: Int, attemptDelay: TimeAmount) {
        self.count = count
        self.attemptDelay = attemptDelay
    }

    /// When ``timePassed(now:)`` is to be called next.
    package var nextDeadline: NIODeadline? {
        isOver || next >= count ? nil : nextAt
    }

    /// Begins the race.
    package mutating func start(now: NIODeadline) -> [Action] {
        dialNext(now: now)
    }

    /// Begins the next attempt when it is due.
    package mutating func timePassed(now: NIODeadline) -> [Action] {
        guard !isOver, let nextAt, now >= nextAt, next < count else { return [] }
        return dialNext(now: now)
    }

    /// An attempt has connected.
    package mutating func connected(_ index: Int) -> [Action] {
        guard !isOver, pending.remove(index) != nil else { return [.abandon(index)] }
        isOver = true
        defer { pending.removeAll() }
        return [.use(index)] + pending.sorted().map { .abandon($0) }
    }

    /// An attempt has failed.
    package mutating func failed(_ index: Int, now: NIODeadline) -> [Action] {
        guard !isOver, pending.remove(index) != nil else { return [] }
        if next < count { return dialNext(now: now) }
        guard pending.isEmpty else { return [] }
        isOver = true
        return [.fail]
    }

    /// Ends the race without a result, for example at a deadline.
    package mutating func cancel() -> [Action] {
        guard !isOver else { return [] }
        isOver = true
        defer { pending.removeAll() }
        return pending.sorted().map { .abandon($0) }
    }

    private mutating func dialNext(now: NIODeadline) -> [Action] {
        guard next < count else {
            isOver = true
            return [.fail]
        }
        let index = next
        next += 1
        pending.insert(index)
        nextAt = now + attemptDelay
        return [.dial(index)]
    }

    /// The addresses in the order of RFC 8305 §4: the families alternate, beginning with that of the first address.
    ///
    /// - Parameter limit: The most addresses kept.
    package static func interleaved(_ addresses: [IPAddress], limit: Int) -> [IPAddress] {
        guard let first = addresses.first else { return [] }
        var same = addresses.filter { $0.isV6 == first.isV6 }[...]
        var other = addresses.filter { $0.isV6 != first.isV6 }[...]
        var result: [IPAddress] = []
        while result.count < limit, !(same.isEmpty && other.isEmpty) {
            if let address = same.popFirst() { result.append(address) }
            if result.count < limit, let address = other.popFirst() { result.append(address) }
        }
        return result
    }
}
