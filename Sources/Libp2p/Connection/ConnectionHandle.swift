import Logging
import NIOCore
import ResourceLimits
import Synchronization

/// An open connection, for use from any thread.
final class ConnectionHandle: Sendable {
    let peer: PeerID
    let isOutbound: Bool
    let usedEarlyMuxer: Bool
    let remoteAddress: IPAddress
    let dialledAddress: Multiaddr?
    let channel: any Channel

    private let connection: NIOLoopBound<Connection>
    private let streams = Atomic<Int>(0)
    private let lastActivity: Atomic<UInt64>
    private let addressVersion = Atomic<UInt64>(.max)

    init(
        peer: PeerID, isOutbound: Bool, usedEarlyMuxer: Bool, remoteAddress: IPAddress, dialledAddress: Multiaddr?,
        channel: any Channel, connection: NIOLoopBound<Connection>
    ) {
        self.peer = peer
        self.isOutbound = isOutbound
        self.usedEarlyMuxer = usedEarlyMuxer
        self.remoteAddress = remoteAddress
        self.dialledAddress = dialledAddress
        self.channel = channel
        self.connection = connection
        lastActivity = Atomic(channel.eventLoop.now.uptimeNanoseconds)
    }

    /// Runs the body with the connection on its event loop.
    func run(_ body: @escaping @Sendable (Connection) -> Void) {
        let connection = connection
        if channel.eventLoop.inEventLoop {
            body(connection.value)
        } else {
            channel.eventLoop.execute { body(connection.value) }
        }
    }

    func close(_ reason: String) {
        run { $0.close(reason) }
    }

    func noteActivity(streams count: Int, at time: NIODeadline) {
        streams.store(count, ordering: .relaxed)
        lastActivity.store(time.uptimeNanoseconds, ordering: .relaxed)
    }

    /// The version of our addresses that was sent last on this connection; nil before any.
    var lastSentAddressVersion: UInt64? {
        get {
            let version = addressVersion.load(ordering: .relaxed)
            return version == .max ? nil : version
        }
        set { addressVersion.store(newValue ?? .max, ordering: .relaxed) }
    }

    var streamCount: Int { streams.load(ordering: .relaxed) }

    /// When a stream was last opened or closed.
    var lastActive: NIODeadline { .uptimeNanoseconds(lastActivity.load(ordering: .relaxed)) }
}

/// The host, as its connections use it.
protocol ConnectionEnvironment: AnyObject, Sendable {
    var identity: NodeIdentity { get }
    var limits: HostLimits { get }
    var logger: Logger { get }
    var budget: ByteBudget { get }
    /// Whether muxers are offered inside the handshake; false only in tests of the other way.
    var offersEarlyMuxer: Bool { get }
    /// The supported protocols, for identify and negotiation.
    var protocols: [String] { get }
    func messageHandler(for protocolID: String) -> MessageHandler?
    /// Our identify message to the peer behind a connection.
    func identifyMessage(for handle: ConnectionHandle) -> [UInt8]
    /// Registers a connection that has been secured; throws when it is refused.
    func connectionOpened(_ handle: ConnectionHandle) throws
    func connectionEnded(_ handle: ConnectionHandle?, remoteAddress: IPAddress, reason: String)
    func identified(_ handle: ConnectionHandle, _ message: IdentifyMessage, isPush: Bool)
}
