import NIOCore
import PeerRoutingCore

/// Connects to whichever of a peer's addresses answers first, by the idea of RFC 8305: one after the other, the next
/// one as soon as the last has failed or has taken a moment, the families taking turns.
///
/// A value type without I/O: tell it what happened, do what it answers.
struct HappyEyeballs: Sendable {
    /// The pause before the next address is tried (RFC 8305 §8 recommends 250 ms for the internet; peers are near).
    static let attemptDelay: TimeAmount = .milliseconds(100)
    /// Most addresses tried.
    static let addressLimit = 8

    /// What is to be done.
    enum Action: Sendable, Hashable {
        /// Connect to the address with this index in ``addresses``.
        case dial(Int)
        /// Drop this attempt, also if it has connected.
        case abandon(Int)
        /// Use this one; it is over.
        case use(Int)
        /// No address can be reached; it is over.
        case fail
    }

    /// The addresses in the order they are tried.
    let addresses: [IPAddress]
    private var next = 0
    private var pending: Set<Int> = []
    private var nextAt: NIODeadline?
    private var isOver = false

    init(_ addresses: [IPAddress]) {
        self.addresses = Self.interleave(addresses)
    }

    /// When ``timePassed(now:)`` is to be called next.
    var nextDeadline: NIODeadline? {
        isOver || next >= addresses.count ? nil : nextAt
    }

    /// Begins.
    mutating func start(now: NIODeadline) -> [Action] {
        dialNext(now: now)
    }

    /// Time passed.
    mutating func timePassed(now: NIODeadline) -> [Action] {
        guard !isOver, let nextAt, now >= nextAt, next < addresses.count else { return [] }
        return dialNext(now: now)
    }

    /// An address was reached.
    mutating func connected(_ index: Int) -> [Action] {
        guard !isOver, pending.remove(index) != nil else { return [.abandon(index)] }
        isOver = true
        defer { pending.removeAll() }
        return [.use(index)] + pending.sorted().map { .abandon($0) }
    }

    /// An address could not be reached.
    mutating func failed(_ index: Int, now: NIODeadline) -> [Action] {
        guard !isOver, pending.remove(index) != nil else { return [] }
        if next < addresses.count { return dialNext(now: now) }
        guard pending.isEmpty else { return [] }
        isOver = true
        return [.fail]
    }

    /// Gives up, for example at a deadline.
    mutating func cancel() -> [Action] {
        guard !isOver else { return [] }
        isOver = true
        defer { pending.removeAll() }
        return pending.sorted().map { .abandon($0) }
    }

    private mutating func dialNext(now: NIODeadline) -> [Action] {
        guard next < addresses.count else {
            isOver = true
            return [.fail]
        }
        let index = next
        next += 1
        pending.insert(index)
        nextAt = now + Self.attemptDelay
        return [.dial(index)]
    }

    /// RFC 8305 §4: the families take turns, beginning with that of the first address.
    private static func interleave(_ addresses: [IPAddress]) -> [IPAddress] {
        guard let first = addresses.first else { return [] }
        var mine = addresses.filter { $0.isV6 == first.isV6 }[...]
        var other = addresses.filter { $0.isV6 != first.isV6 }[...]
        var result: [IPAddress] = []
        while result.count < addressLimit, !(mine.isEmpty && other.isEmpty) {
            if let address = mine.popFirst() { result.append(address) }
            if result.count < addressLimit, let address = other.popFirst() { result.append(address) }
        }
        return result
    }
}
