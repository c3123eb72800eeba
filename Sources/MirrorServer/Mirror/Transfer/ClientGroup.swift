import NIOCore
import OCIDistribution

/// Hears from a ``ClientGroup``, on its event loop.
protocol ClientGroupDelegate: AnyObject {
    /// Every client can take more.
    func clientsAreWritable()
    /// The last client has gone before the response was finished.
    func clientsHaveGone()
}

/// The clients that one transfer serves: one at first, more when others ask for the same while nothing has been sent.
///
/// What the transfer writes goes to each of them, at the pace of the slowest; see ``takeBlocked()`` for one that is too
/// slow. Confined to the event loop of their connections.
final class ClientGroup: @unchecked Sendable {
    /// Most clients of one transfer. Others begin one of their own.
    static let limit = 1024

    /// One client's request, and where its response goes.
    struct Client: Sendable {
        let request: MissRequest
        let writer: any ResponseWriter
        let arrivedAt: NIODeadline
    }

    private var clients: [Client]
    private let left: () -> Void
    /// Held strongly, so that a transfer that waits for its clients only lives as long as they do; it takes itself out
    /// at its end.
    var delegate: (any ClientGroupDelegate)?
    private(set) var isHeadWritten: Bool

    /// - Parameter left: called for every client whose response has ended, in whatever way.
    init(_ client: Client, left: @escaping () -> Void) {
        clients = [client]
        isHeadWritten = client.writer.isHeadWritten
        self.left = left
        client.writer.delegate = self
    }

    var count: Int { clients.count }
    /// Whether all clients can take more.
    var isWritable: Bool { clients.allSatisfy(\.writer.isWritable) }

    /// Takes in one more client.
    ///
    /// - Returns: false when it comes too late, or there are too many.
    func join(_ client: Client) -> Bool {
        guard !isHeadWritten, !clients.isEmpty, clients.count < Self.limit else { return false }
        clients.append(client)
        client.writer.delegate = self
        return true
    }

    // MARK: Writing

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
            left()
        }
        return all
    }

    // MARK: Parting

    /// Takes out all clients but the first. They are not counted as having left.
    func takeFollowers() -> [Client] {
        guard clients.count > 1 else { return [] }
        defer { clients.removeSubrange(1...) }
        return Array(clients[1...])
    }

    /// Takes out the clients that hold the others up. They are not counted as having left.
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
        if isWritable { delegate?.clientsAreWritable() }
    }

    func responseWriterDidClose(_ writer: any ResponseWriter) {
        guard let index = clients.firstIndex(where: { $0.writer === writer }) else { return }
        clients.remove(at: index)
        left()
        if clients.isEmpty {
            delegate?.clientsHaveGone()
        } else if isWritable {
            delegate?.clientsAreWritable()
        }
    }
}
