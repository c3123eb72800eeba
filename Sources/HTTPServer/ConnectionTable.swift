import Logging
import NIOConcurrencyHelpers
import NIOCore
import ResourceLimits
import Synchronization

/// The connections of one event loop, whose deadlines are checked together by one timer: a deadline costs a connection
/// one word instead of a scheduled task.
///
/// Confined to its event loop.
final class ConnectionTable {
    let eventLoop: any EventLoop
    private let interval: TimeAmount
    private var connections: [ConnectionHandler] = []
    private var ticking = false
    private var date = HTTPDate()
    private(set) var isDraining = false
    private var drained: EventLoopPromise<Void>?

    init(eventLoop: any EventLoop, limits: HTTPLimits) {
        self.eventLoop = eventLoop
        // Timeouts are enforced with a delay of at most a quarter of the shortest one.
        let quarter = limits.shortestWait.nanoseconds / 4
        interval = .nanoseconds(min(max(quarter, 5_000_000), 1_000_000_000))
    }

    var count: Int { connections.count }

    /// The value of the `Date` field.
    func dateText(now: NIODeadline) -> String { date.text(now: now) }

    func add(_ connection: ConnectionHandler) {
        connection.tableIndex = connections.count
        connections.append(connection)
        if isDraining { connection.drain() }
        scheduleTick()
    }

    func remove(_ connection: ConnectionHandler) {
        let index = connection.tableIndex
        guard index >= 0, index < connections.count, connections[index] === connection else { return }
        connection.tableIndex = -1
        let last = connections.removeLast()
        if last !== connection {
            connections[index] = last
            last.tableIndex = index
        }
        if connections.isEmpty {
            connections = []
            drained?.succeed()
            drained = nil
        }
    }

    /// Closes idle connections now, the others after the response they are in, and all that are left after
    /// `gracePeriod`.
    ///
    /// - Returns: succeeds when no connection is left.
    func drain(gracePeriod: TimeAmount) -> EventLoopFuture<Void> {
        isDraining = true
        for connection in connections { connection.drain() }
        guard !connections.isEmpty else { return eventLoop.makeSucceededVoidFuture() }
        let promise: EventLoopPromise<Void>
        if let drained {
            promise = drained
        } else {
            promise = eventLoop.makePromise()
            drained = promise
        }
        eventLoop.assumeIsolated().scheduleTask(in: gracePeriod) { self.closeAll() }
        return promise.futureResult
    }

    private func closeAll() {
        for connection in connections { connection.reset() }
    }

    private func scheduleTick() {
        guard !ticking else { return }
        ticking = true
        eventLoop.assumeIsolated().scheduleTask(in: interval) { self.tick() }
    }

    private func tick() {
        ticking = false
        let now = eventLoop.now
        // A copy, because closing a connection removes it.
        for connection in connections { connection.tick(now: now) }
        if !connections.isEmpty { scheduleTick() }
    }
}

/// The state that all connections of a server share.
final class ServerContext: Sendable {
    let limits: HTTPLimits
    let responder: any RequestResponder
    let observer: (any RequestObserver)?
    let logger: Logger
    private let open = Atomic<Int>(0)
    /// Connections by source address.
    private let sources = NIOLockedValueBox(SourceCounts<String>())

    /// How a new connection is handled.
    enum Admission {
        case serve
        /// Answer `503` to its first request.
        case refuse
        /// Close it at once.
        case drop
    }

    init(limits: HTTPLimits, responder: any RequestResponder, observer: (any RequestObserver)?, logger: Logger) {
        self.limits = limits.clamped()
        self.responder = responder
        self.observer = observer
        self.logger = logger
    }

    /// Connections that are open now, refused ones included.
    var openConnections: Int { open.load(ordering: .relaxed) }

    /// Counts a new connection in; ``release(_:)`` must follow unless it is dropped.
    ///
    /// - Parameter source: The IP address that it comes from; nil for one that has none, which counts for no source.
    func admit(_ source: String? = nil) -> Admission {
        let count = open.add(1, ordering: .relaxed).newValue
        let ofSource = source.map { source in sources.withLockedValue { $0.add(source) } } ?? 0
        let share = limits.share(whenOpen: count)
        if count <= limits.connections, ofSource <= share { return .serve }
        // Those that are refused are bounded, of all sources and of each.
        if count <= limits.connections + limits.refusedConnections, ofSource <= share + limits.refusedConnections {
            return .refuse
        }
        release(source)
        return .drop
    }

    /// Counts a connection out.
    func release(_ source: String? = nil) {
        open.subtract(1, ordering: .relaxed)
        guard let source else { return }
        sources.withLockedValue { $0.remove(source) }
    }
}
