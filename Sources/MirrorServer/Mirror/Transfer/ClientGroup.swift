import NIOCore
import OCIDistribution

/// Receives the events of a ``ClientGroup``, on its event loop.
protocol ClientGroupDelegate: AnyObject {
    /// All clients are writable.
    func clientsAreWritable()
    /// Some clients have not been writable for the timeout, while others were.
    func slowClientsTimedOut()
    /// The last client has disconnected before the response was finished.
    func clientsDisconnected()
}

/// The clients of one transfer: one at first, more when others request the same while nothing has been sent.
///
/// What the transfer writes goes to each of them, at the pace of the slowest; see ``waitForSlowClients(timeout:clock:)``.
/// Confined to the event loop of their connections.
final class ClientGroup: @unchecked Sendable {
    /// Most clients of one transfer. Further ones get a transfer of their own.
    static let limit = 1024

    /// One client's request and the writer of its response.
    struct Client: Sendable {
        let request: MissRequest
        let writer: any ResponseWriter
        let arrivedAt: NIODeadline
    }

    private var clients: [Client]
    private let onEnd: () -> Void
    /// Held strongly, so that the transfer lives as long as its clients; see ``detach()``.
    private var delegate: (any ClientGroupDelegate)?
    private var slowClientTimer: DeadlineTimer?
    private(set) var isHeadWritten: Bool

    /// - Parameter onEnd: called for every client whose response has ended, in whatever way.
    init(_ client: Client, onEnd: @escaping () -> Void) {
        clients = [client]
        isHeadWritten = client.writer.isHeadWritten
        self.onEnd = onEnd
        client.writer.delegate = self
    }

    var count: Int { clients.count }
    /// Whether all clients are writable.
    var isWritable: Bool { clients.allSatisfy(\.writer.isWritable) }

    /// Begins to report events to the transfer, and keeps it alive.
    func attach(_ delegate: any ClientGroupDelegate) { self.delegate = delegate }

    /// Reports no more events. The responses are still to be ended.
    func detach() {
        delegate = nil
        slowClientTimer?.cancel()
        slowClientTimer = nil
    }

    /// Adds one more client.
    ///
    /// - Returns: false when the response has begun, or there are too many.
    func join(_ client: Client) -> Bool {
        guard !isHeadWritten, !clients.isEmpty, clients.count < Self.limit else { return false }
        clients.append(client)
        client.writer.delegate = self
        return true
    }

    // MARK: Writing

    func note(_ reason: String) {
        for client in clients { client.writer.note(reason) }
    }

    func writeHead(_ head: ResponseHead) {
        isHeadWritten = true
        for client in clients { client.writer.writeHead(head) }
    }

    func write(_ bytes: ByteBuffer) {
        for client in clients { client.writer.write(bytes) }
    }

    func flush() {
        for client in clients { client.writer.flush() }
    }

    func finish() {
        for client in takeAll() { client.writer.finish() }
    }

    func abort(_ reason: String) {
        for client in takeAll() { client.writer.abort(reason) }
    }

    func send(_ error: DistributionError, fields: [(name: String, value: String)]) {
        for client in takeAll() { client.writer.send(error, fields: fields) }
    }

    private func takeAll() -> [Client] {
        let all = clients
        clients = []
        for client in all {
            client.writer.delegate = nil
            onEnd()
        }
        return all
    }

    // MARK: Detaching clients

    /// Removes all clients but the first, without ending their responses.
    func takeFollowers() -> [Client] {
        guard clients.count > 1 else { return [] }
        defer { clients.removeSubrange(1...) }
        return Array(clients[1...])
    }

    /// Waits for the clients that are not writable while others are, for at most `timeout`.
    func waitForSlowClients(timeout: Duration, clock: StallAdjustedClock) {
        guard clients.count > 1, slowClientTimer == nil else { return }
        slowClientTimer = clock.timer(in: timeout) { [weak self] in
            self?.slowClientTimer = nil
            self?.delegate?.slowClientsTimedOut()
        }
    }

    /// Removes the clients that block the others, without ending their responses.
    ///
    /// - Returns: none when all clients are equally slow.
    func takeBlocked() -> [Client] {
        let blocked = clients.filter { !$0.writer.isWritable }
        guard blocked.count < clients.count else { return [] }
        clients.removeAll { !$0.writer.isWritable }
        return blocked
    }
}

extension ClientGroup: ResponseWriterDelegate {
    func responseWriterIsWritable(_ writer: any ResponseWriter) {
        reportWritability()
    }

    func responseWriterDidClose(_ writer: any ResponseWriter) {
        guard let index = clients.firstIndex(where: { $0.writer === writer }) else { return }
        clients.remove(at: index)
        onEnd()
        if clients.isEmpty {
            delegate?.clientsDisconnected()
        } else {
            reportWritability()
        }
    }

    private func reportWritability() {
        guard isWritable else { return }
        slowClientTimer?.cancel()
        slowClientTimer = nil
        delegate?.clientsAreWritable()
    }
}
