import Libp2p
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// A queue a test waits on.
package final class Inbox<Element: Sendable>: Sendable {
    private struct State {
        var elements: [Element] = []
        var isClosed = false
        var waiters: [(id: UInt64, continuation: CheckedContinuation<Element?, Never>)] = []
        var nextWaiter: UInt64 = 0
    }

    private let state = NIOLockedValueBox(State())

    package init() {}

    package func put(_ element: Element) {
        let waiter = state.withLockedValue { state -> CheckedContinuation<Element?, Never>? in
            guard state.waiters.isEmpty else { return state.waiters.removeFirst().continuation }
            state.elements.append(element)
            return nil
        }
        waiter?.resume(returning: element)
    }

    package func close() {
        let waiters = state.withLockedValue { state in
            state.isClosed = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume(returning: nil) }
    }

    /// The next element; nil after the last when the inbox has been closed, and at once when the task is cancelled, as
    /// a test is that passes its time limit.
    package func next() async -> Element? {
        let id = state.withLockedValue { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let element = state.withLockedValue { state -> Element?? in
                    if !state.elements.isEmpty { return .some(state.elements.removeFirst()) }
                    if state.isClosed || Task.isCancelled { return .some(nil) }
                    state.waiters.append((id, continuation))
                    return nil
                }
                if let element { continuation.resume(returning: element) }
            }
        } onCancel: {
            let waiter = state.withLockedValue { state in
                state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0).continuation }
            }
            waiter?.resume(returning: nil)
        }
    }

    /// The first element of interest; those before it are dropped.
    package func first<Result>(_ match: (Element) -> Result?) async throws -> Result {
        while let element = await next() {
            if let result = match(element) { return result }
        }
        throw HostError.connectionClosed("the inbox closed")
    }
}

extension HostLimits {
    /// The defaults, with times that a machine that stalls does not use up: what a test is not about must not end it.
    package static var generous: HostLimits {
        var limits = HostLimits()
        limits.upgradeTimeout = .minutes(2)
        limits.dialTimeout = .minutes(2)
        limits.keepAliveInterval = .minutes(10)
        limits.keepAliveTimeout = .minutes(2)
        limits.writeTimeout = .minutes(2)
        limits.negotiationTimeout = .minutes(2)
        limits.requestTimeout = .minutes(2)
        limits.sendTimeout = .minutes(2)
        limits.messageStreamIdleTimeout = .minutes(10)
        limits.identifyTimeout = .minutes(2)
        limits.pingTimeout = .minutes(2)
        // Would undo what a test says of the interfaces.
        limits.interfaceCheckInterval = .hours(1)
        return limits
    }
}

/// A host on loopback with its events in an inbox, and a protocol that behaves like the DHT's:
/// `A…` is not answered, `R…` resets the stream, `S` and a number asks for so many bytes, the rest is echoed.
package struct TestHost: Sendable {
    package static let protocolID = "/test/echo/1.0.0"

    package let host: Host
    package let events = Inbox<HostEvent>()
    /// Messages beginning with `A`, and how many of them came.
    package let silent = NIOLockedValueBox(0)

    package init(
        identity: NodeIdentity = NodeIdentity(), listen: [String] = ["/ip4/127.0.0.1/tcp/0"], earlyMuxer: Bool = true,
        logger: Logger? = nil, configure: (inout HostConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = HostConfiguration(
            identity: identity, listenAddresses: try listen.map { try Multiaddr(parsing: $0) },
            logger: logger ?? Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        configuration.advertiseLoopback = true
        configuration.limits = .generous
        // A second dial is a test's next line, however long it takes to get there.
        configuration.limits.dialBackOffBase = .minutes(2)
        configure(&configuration)
        host = Host(configuration: configuration, offersEarlyMuxer: earlyMuxer)
        let (events, silent) = (events, silent)
        host.setEventHandler { events.put($0) }
        host.registerMessageHandler(Self.protocolID) { message, reply in
            switch message.payload.first {
            case UInt8(ascii: "A"):
                silent.withLockedValue { $0 += 1 }
                reply.ignore()
            case UInt8(ascii: "R"):
                reply.reset("asked for")
            case UInt8(ascii: "S"):
                let count = Int(String(decoding: message.payload.dropFirst(), as: UTF8.self)) ?? 0
                reply.respond([UInt8](repeating: 7, count: count))
            case UInt8(ascii: "L"):
                // Later, and from elsewhere.
                Task { reply.respond(message.payload) }
            case UInt8(ascii: "I"):
                // Later, and from elsewhere, not answered.
                Task { reply.ignore() }
            case UInt8(ascii: "N"):
                // Never.
                break
            default:
                reply.respond(message.payload)
            }
        }
    }

    package var id: PeerID { host.peerID }
    package var silentCount: Int { silent.withLockedValue { $0 } }

    package func connect(to other: TestHost) async throws {
        _ = try await host.connect(to: other.id, addresses: other.host.listenAddresses)
    }

    package func identified(_ peer: PeerID) async throws -> (protocols: [String], addresses: [Multiaddr]) {
        try await events.first { event in
            if case .identified(peer, let protocols, let addresses, _) = event { (protocols, addresses) } else { nil }
        }
    }

    package func disconnected(_ peer: PeerID) async throws {
        try await events.first { event in
            if case .disconnected(peer) = event { () } else { nil }
        }
    }

    package func request(_ text: String, to peer: PeerID) async throws -> [UInt8] {
        try await host.request(Array(text.utf8), to: peer, protocolID: Self.protocolID)
    }
}

/// Starts hosts, runs the body, and shuts them down whatever happens.
package func withHosts(_ hosts: TestHost..., body: () async throws -> Void) async throws {
    func stop() async { for host in hosts { await host.host.shutdown() } }
    do {
        for host in hosts { try await host.host.start() }
        try await body()
    } catch {
        await stop()
        throw error
    }
    await stop()
}
