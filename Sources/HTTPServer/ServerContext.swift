import Logging
import NIOCore
import Synchronization

/// What all connections of a server share.
final class ServerContext: Sendable {
    let limits: HTTPLimits
    let responder: any RequestResponder
    let observer: (any RequestObserver)?
    let logger: Logger
    private let open = Atomic<Int>(0)

    /// What is done with a new connection.
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

    /// Counts a new connection in; ``release()`` must follow unless it is dropped.
    func admit() -> Admission {
        let count = open.add(1, ordering: .relaxed).newValue
        if count <= limits.connections { return .serve }
        if count <= limits.connections + limits.refusedConnections { return .refuse }
        release()
        return .drop
    }

    /// Counts a connection out.
    func release() {
        open.subtract(1, ordering: .relaxed)
    }
}
