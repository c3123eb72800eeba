import DequeModule
import Metrics
import NIOCore
import PeerRoutingCore
import ResourceLimits

/// A request that waits for a connection.
final class PoolWaiter {
    let peer: PeerEndpoint
    /// Whether the router knows the peer's address first-hand.
    let isObserved: Bool
    /// Whether there is no other peer to ask.
    let isUrgent: Bool
    /// Whether an idle connection will not do, because one of them has just proved stale.
    let needsFresh: Bool
    var isDone = false
    let ready: (Result<PeerConnection, PeerFailure>) -> Void

    init(
        peer: PeerEndpoint, isObserved: Bool, isUrgent: Bool, needsFresh: Bool,
        ready: @escaping (Result<PeerConnection, PeerFailure>) -> Void
    ) {
        self.peer = peer
        self.isObserved = isObserved
        self.isUrgent = isUrgent
        self.needsFresh = needsFresh
        self.ready = ready
    }
}

/// The connections of one event loop to all peers.
///
/// Confined to its event loop. Connections, and requests waiting for one, are limited; waiting requests are served in
/// order.
final class PeerPool {
    private struct Slot {
        var idle: [PeerConnection] = []
        /// Open connections, idle or not.
        var open = 0
        /// Dials under way.
        var dialling = 0
        var waiters: Deque<PoolWaiter> = []
        /// Whether the waiters wait for a dial of another event loop.
        var awaitsOthersDial = false
    }

    let eventLoop: any EventLoop
    private let configuration: PeerClientConfiguration
    let directory: PeerDirectory
    /// Measures dials, successful or not.
    var dialTimer: Metrics.Timer?
    private let memory: TransferMemory
    private let onUnreachable: @Sendable (PeerID) -> Void
    private let makeClock: () -> StallAdjustedClock
    private let perPeerLimit: Int
    private let totalLimit: Int
    private var slots: [PeerEndpoint: Slot] = [:]
    private var total = 0
    private var waiting = 0
    private var sweeper: RepeatedTask?
    private var isClosed = false

    /// - Parameters:
    ///   - share: the number of event loops that divide the limits of the configuration.
    ///   - makeClock: creates the clock of a dial, which serves many requests.
    init(
        eventLoop: any EventLoop, configuration: PeerClientConfiguration, share: Int, directory: PeerDirectory,
        memory: TransferMemory, makeClock: @escaping () -> StallAdjustedClock,
        onUnreachable: @escaping @Sendable (PeerID) -> Void
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.directory = directory
        self.memory = memory
        self.makeClock = makeClock
        self.onUnreachable = onUnreachable
        perPeerLimit = max(8, configuration.connectionsPerPeer / max(1, share))
        totalLimit = max(32, configuration.connections / max(1, share))
    }

    /// Open connections.
    var openConnections: Int { slots.values.reduce(0) { $0 + $1.open } }
    /// Requests that wait for a connection.
    var waitingRequests: Int { waiting }

    /// Calls the waiter with a connection or a failure, never from within this call.
    func acquire(_ waiter: PoolWaiter) {
        guard !isClosed else { return fail(waiter, .unreachable) }
        startSweeping()
        if !waiter.needsFresh, let connection = popIdle(waiter.peer) {
            waiter.isDone = true
            let bound = NIOLoopBound((waiter, connection), eventLoop: eventLoop)
            eventLoop.execute { bound.value.0.ready(.success(bound.value.1)) }
            return
        }
        guard waiting < configuration.waitingRequests else { return fail(waiter, .overloaded) }
        waiting += 1
        slots[waiter.peer, default: Slot()].waiters.append(waiter)
        dialIfNeeded(waiter)
    }

    /// The waiter no longer wants a connection.
    func cancel(_ waiter: PoolWaiter) {
        guard !waiter.isDone else { return }
        waiter.isDone = true
        guard var slot = slots[waiter.peer] else { return }
        if let index = slot.waiters.firstIndex(where: { $0 === waiter }) {
            slot.waiters.remove(at: index)
            waiting -= 1
            slots[waiter.peer] = slot
        }
    }

    /// Closes every connection and fails every waiter.
    func close() {
        isClosed = true
        sweeper?.cancel()
        sweeper = nil
        for peer in Array(slots.keys) {
            failWaiters(of: peer)
            for connection in slots[peer]?.idle ?? [] { connection.close() }
        }
    }

    // MARK: Dialling

    private func dialIfNeeded(_ waiter: PoolWaiter) {
        let peer = waiter.peer
        // Says nothing about the peer, and its open connections serve the waiters.
        guard !DescriptorReserve.process.isSpent else {
            if slots[peer]?.open ?? 0 == 0 { failWaiters(of: peer, .overloaded) }
            return
        }
        let slot = slots[peer] ?? Slot()
        guard slot.dialling < slot.waiters.count, slot.open + slot.dialling < perPeerLimit else { return }
        guard total < totalLimit || evictIdle(except: peer) else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let loop = eventLoop
        let permit = directory.mayDial(peer, isUrgent: waiter.isUrgent) { reached in
            loop.execute { bound.value.othersDialEnded(peer, reached: reached) }
        }
        switch permit {
        case .dial: dial(peer, isObserved: waiter.isObserved)
        case .wait: slots[peer]?.awaitsOthersDial = true
        case .unreachable: failWaiters(of: peer)
        }
    }

    private func dial(_ peer: PeerEndpoint, isObserved: Bool) {
        slots[peer, default: Slot()].dialling += 1
        total += 1
        let dialer = Dialer(
            peer: peer, port: configuration.port, memory: memory, clock: makeClock(), eventLoop: eventLoop
        ) { [self, startedAt = NIODeadline.now()] connection in
            dialTimer?.recordNanoseconds((.now() - startedAt).nanoseconds)
            dialEnded(peer, isObserved: isObserved, connection)
        }
        dialer.start(timeout: configuration.dialTimeout)
    }

    private func dialEnded(_ peer: PeerEndpoint, isObserved: Bool, _ connection: PeerConnection?) {
        slots[peer]?.dialling -= 1
        let isAlive = directory.dialEnded(peer, succeeded: connection != nil)
        guard let connection else {
            total -= 1
            // An address that some node has only claimed says nothing about the identity.
            if !isAlive, isObserved { onUnreachable(peer.id) }
            // Open connections serve the waiters, if there are any: one failed dial says little then.
            if let slot = slots[peer], slot.open == 0, slot.dialling == 0 { failWaiters(of: peer) }
            if waiting > 0 { serveStarved() }
            return
        }
        slots[peer]?.open += 1
        connection.pool = self
        guard !isClosed else { return connection.close() }
        becameIdle(connection)
        // The first of several connections permits the dials of the others.
        if let next = slots[peer]?.waiters.first { dialIfNeeded(next) }
    }

    private func othersDialEnded(_ peer: PeerEndpoint, reached: Bool) {
        guard let slot = slots[peer], slot.awaitsOthersDial else { return }
        slots[peer]?.awaitsOthersDial = false
        if !reached, slot.open == 0, slot.dialling == 0 { return failWaiters(of: peer) }
        for waiter in slot.waiters { dialIfNeeded(waiter) }
    }

    // MARK: Connections

    /// A connection is idle: it serves the next waiter, or is kept.
    func becameIdle(_ connection: PeerConnection) {
        if isClosed { return connection.close() }
        if let waiter = popWaiter(connection.peer) {
            waiter.isDone = true
            let bound = NIOLoopBound((waiter, connection), eventLoop: eventLoop)
            eventLoop.execute {
                let (waiter, connection) = bound.value
                waiter.ready(connection.isIdle ? .success(connection) : .failure(.closedBeforeHead))
            }
            return
        }
        guard slots[connection.peer].map({ $0.idle.count < configuration.idleConnectionsPerPeer }) ?? false else {
            return connection.close()
        }
        slots[connection.peer]?.idle.append(connection)
        // Requests to other peers may wait because there are too many connections in all.
        if waiting > 0, total >= totalLimit { serveStarved() }
    }

    /// Returns a connection that was not used.
    func release(_ connection: PeerConnection) {
        if connection.isIdle { becameIdle(connection) }
    }

    /// A connection is lost.
    func closed(_ connection: PeerConnection) {
        let peer = connection.peer
        directory.withStats { $0.connectionClosed(peer, now: .now()) }
        total -= 1
        guard var slot = slots[peer] else { return }
        slot.open -= 1
        slot.idle.removeAll { $0 === connection }
        let next = slot.waiters.first
        if slot.open <= 0, slot.dialling == 0, slot.waiters.isEmpty {
            slots[peer] = nil
        } else {
            slots[peer] = slot
        }
        if let next { dialIfNeeded(next) } else if waiting > 0 { serveStarved() }
    }

    private func popIdle(_ peer: PeerEndpoint) -> PeerConnection? {
        // The most recently used one is the least likely to have been closed by the peer.
        while let connection = slots[peer]?.idle.popLast() {
            if connection.isIdle { return connection }
        }
        return nil
    }

    private func popWaiter(_ peer: PeerEndpoint) -> PoolWaiter? {
        guard let waiter = slots[peer]?.waiters.popFirst() else { return nil }
        waiting -= 1
        return waiter
    }

    /// There is room for another connection: requests to peers without one come first.
    private func serveStarved() {
        let starved = slots.values.filter { $0.dialling < $0.waiters.count }
            .sorted { $0.open + $0.dialling < $1.open + $1.dialling }
        for slot in starved {
            guard let waiter = slot.waiters.first else { continue }
            dialIfNeeded(waiter)
        }
    }

    /// Closes the connection that has been idle longest, to make room for one to another peer.
    private func evictIdle(except peer: PeerEndpoint) -> Bool {
        let oldest = slots.filter { $0.key != peer }.compactMap(\.value.idle.first)
            .min { $0.idleSince < $1.idleSince }
        guard let oldest else { return false }
        slots[oldest.peer]?.idle.removeAll { $0 === oldest }
        oldest.close()
        return true
    }

    private func failWaiters(of peer: PeerEndpoint, _ failure: PeerFailure = .unreachable) {
        while let waiter = popWaiter(peer) { fail(waiter, failure) }
        if let slot = slots[peer], slot.open == 0, slot.dialling == 0 { slots[peer] = nil }
    }

    private func fail(_ waiter: PoolWaiter, _ failure: PeerFailure) {
        waiter.isDone = true
        let bound = NIOLoopBound(waiter, eventLoop: eventLoop)
        eventLoop.execute { bound.value.ready(.failure(failure)) }
    }

    private func startSweeping() {
        guard sweeper == nil else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let interval = TimeAmount(max(configuration.idleTimeout / 4, .milliseconds(50)))
        sweeper = eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in bound.value.sweep() }
    }

    /// Closes connections that have been idle too long; ends itself when no slot is left.
    private func sweep() {
        let oldest = NIODeadline.now() - TimeAmount(configuration.idleTimeout)
        for (peer, slot) in slots {
            let stale = slot.idle.filter { $0.idleSince < oldest }
            guard !stale.isEmpty else { continue }
            slots[peer]?.idle.removeAll { $0.idleSince < oldest }
            for connection in stale { connection.close() }
        }
        // Slots whose last waiter was cancelled.
        slots = slots.filter { $0.value.open > 0 || $0.value.dialling > 0 || !$0.value.waiters.isEmpty }
        if slots.isEmpty {
            sweeper?.cancel()
            sweeper = nil
        }
    }
}
