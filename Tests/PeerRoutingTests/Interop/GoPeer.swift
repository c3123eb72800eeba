import Foundation
import NIOCore
import NIOPosix
import PeerTestKit

@testable import PeerRouting

/// A go-libp2p host with go-libp2p-kad-dht in a process of its own, told what to do over its control socket.
///
/// `scripts/go-peer` gets the program; when that fails, so does the test. Its DHT speaks the protocol of libp2p's
/// defaults, so ours is made to.
final class GoPeer: Sendable {
    static let protocolID = "/ipfs/kad/1.0.0"

    struct Found: Hashable, Sendable {
        let id: PeerID
        let addresses: [Multiaddr]
    }

    let id: PeerID
    let address: Multiaddr
    private let process: PipedProcess
    private let folder: String

    private static let program = FetchedProgram.path(from: "scripts/go-peer")

    /// Starts a node of the DHT.
    ///
    /// - Parameters:
    ///   - isMember: whether it answers others too, and is taken into their tables.
    ///   - seed: 32 bytes of an Ed25519 key; its own choice without.
    ///   - options: in the program's own words.
    static func start(
        listening address: String = "/ip4/127.0.0.1/tcp/0", isMember: Bool = true, seed: [UInt8]? = nil,
        joining peers: [Multiaddr] = [], options: [String] = []
    ) async throws -> GoPeer {
        var template = Array("/tmp/gopeer.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw IOError(errnoCode: errno, reason: "mkdtemp") }
        let folder = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        do {
            var arguments = [
                try await program.value, isMember ? "-dhtServer" : "-dhtClient", "-hostAddrs", address, "-listen",
                "/unix\(folder)/control", "-relay=0", "-quic=0", "-autonat=0",
            ]
            if let seed {
                try Data(privateKey(seed: seed)).write(to: URL(fileURLWithPath: "\(folder)/key"))
                arguments += ["-id", "\(folder)/key"]
            }
            if !peers.isEmpty {
                arguments += ["-b", "-bootstrapPeers", peers.map(\.description).joined(separator: ",")]
            }
            let process = try await PipedProcess.start(arguments + options)
            var id: PeerID?
            while let line = await process.lines.next() {
                if line.hasPrefix("Peer ID: ") { id = try PeerID(parsing: String(line.dropFirst(9))) }
                guard line.hasPrefix("/"), let id else { continue }
                return GoPeer(id, try Multiaddr(parsing: line), process, folder)
            }
            await process.stop()
            throw HostError.connectionClosed("the Go peer ended, or was given up, before it listened")
        } catch {
            try? FileManager.default.removeItem(atPath: folder)
            throw error
        }
    }

    private init(_ id: PeerID, _ address: Multiaddr, _ process: PipedProcess, _ folder: String) {
        self.id = id
        self.address = address
        self.process = process
        self.folder = folder
    }

    /// Where it listens, with its ID.
    var fullAddress: Multiaddr { address.withPeerID(id) }

    /// Ends it and waits.
    func stop() async {
        await process.stop()
        try? FileManager.default.removeItem(atPath: folder)
    }

    // MARK: What it can be told

    /// Connects to a peer, which its DHT then considers.
    func connect(to router: KademliaRouter) async throws {
        _ = try await ask { request in
            request.varint(1, 1)
            request.message(2) { connect in
                connect.bytes(1, router.peerID.bytes)
                for address in router.host.listenAddresses { connect.bytes(2, address.bytes) }
            }
        }
    }

    /// Keeps a record of itself as provider, and tells those nearest to the key.
    func provide(_ key: String) async throws {
        _ = try await dht(type: 8) { $0.bytes(3, [0x01, 0x55] + ContentKey(key).multihash) }
    }

    /// The providers of a key: those it has records of and those it hears of from others.
    func providers(of key: String, count: Int = 100) async throws -> [Found] {
        try await dht(type: 2) {
            $0.bytes(3, [0x01, 0x55] + ContentKey(key).multihash)
            $0.varint(6, UInt64(count))
        }.compactMap(\.peer)
    }

    /// The peers nearest to a key, nearest first, as a search finds them; none while its table is empty, which it
    /// reports as a failure.
    func closest(to key: String) async throws -> [PeerID] {
        let answers: [Answer]
        do {
            answers = try await dht(type: 3) { $0.bytes(4, ContentKey(key).multihash) }
        } catch HostError.badAnswer {
            return []
        }
        return try answers.compactMap(\.value).map { try PeerID(bytes: $0) }
    }

    // MARK: The control socket

    private struct Answer {
        var kind: UInt64 = 0
        var peer: Found?
        var value: [UInt8]?

        /// A `DHTResponse`.
        init(_ bytes: [UInt8]) throws {
            var reader = ProtobufReader(bytes)
            while let field = try reader.next() {
                switch (field.number, field.value) {
                case (1, .varint(let value)): kind = value
                case (2, .bytes(let bytes)): peer = try Found(Array(bytes))
                case (3, .bytes(let bytes)): value = Array(bytes)
                default: break
                }
            }
        }

        var isEnd: Bool { kind == 2 }
    }

    /// The answers to a question about the DHT, which end with one that says so.
    private func dht(type: UInt64, _ fill: (inout ProtobufWriter) -> Void) async throws -> [Answer] {
        try await ask { request in
            request.varint(1, 4)
            request.message(5) { dht in
                dht.varint(1, type)
                fill(&dht)
            }
        }
    }

    /// Sends a `Request`.
    ///
    /// - Returns: what the `Response`, and the messages that follow it, say about the DHT.
    /// - Throws: what the program reports as wrong.
    private func ask(_ fill: (inout ProtobufWriter) -> Void) async throws -> [Answer] {
        let messages = Inbox<[UInt8]>()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(MessageReader(messages))
                }
            }
            .connect(unixDomainSocketPath: "\(folder)/control").get()
        // The program waits for more questions: thousands of connections would be left open.
        defer { channel.close(promise: nil) }
        var request = ProtobufWriter()
        fill(&request)
        try await channel.writeAndFlush(ByteBuffer(bytes: DelimitedMessage.encode(request.bytes)))
        guard let response = await messages.next() else {
            throw HostError.connectionClosed("the Go peer did not answer")
        }
        var reader = ProtobufReader(response)
        var dht: [UInt8]?
        var failure: String?
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (2, .bytes(let bytes)): failure = String(decoding: bytes, as: UTF8.self)
            case (5, .bytes(let bytes)): dht = Array(bytes)
            default: break
            }
        }
        if let failure { throw HostError.badAnswer("the Go peer: \(failure)") }
        guard let dht else { return [] }
        let first = try Answer(dht)
        guard first.kind == 0 else { return [first] }
        var answers: [Answer] = []
        while let bytes = await messages.next() {
            let answer = try Answer(bytes)
            if answer.isEnd { return answers }
            answers.append(answer)
        }
        throw HostError.connectionClosed("the Go peer ended its answer short")
    }

    /// An Ed25519 key as libp2p writes private keys.
    private static func privateKey(seed: [UInt8]) throws -> [UInt8] {
        [0x08, 0x01, 0x12, 0x40] + seed + (try NodeIdentity(seed: seed)).publicKey.bytes
    }
}

extension GoPeer.Found {
    /// A `PeerInfo`.
    fileprivate init(_ bytes: [UInt8]) throws {
        var id: PeerID?
        var addresses: [Multiaddr] = []
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let bytes)): id = try PeerID(bytes: Array(bytes))
            case (2, .bytes(let bytes)): addresses.append(try Multiaddr(bytes: Array(bytes)))
            default: break
            }
        }
        guard let id else { throw HostError.badAnswer("a peer without an ID") }
        self.init(id: id, addresses: addresses)
    }
}

/// Runs the body with Go peers, which are stopped whatever happens.
func withGoPeers(_ peers: [GoPeer], body: () async throws -> Void) async throws {
    func stop() async { for peer in peers { await peer.stop() } }
    do {
        try await body()
    } catch {
        await stop()
        throw error
    }
    await stop()
}

/// Cuts what comes in into messages.
private final class MessageReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let messages: Inbox<[UInt8]>
    private var decoder = DelimitedMessageDecoder(maximumLength: 1 << 22)

    init(_ messages: Inbox<[UInt8]>) {
        self.messages = messages
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        do {
            while let message = try decoder.next(from: &bytes) { messages.put(message) }
        } catch {
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { messages.close() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
