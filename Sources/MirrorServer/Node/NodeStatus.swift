import Foundation
import HTTPServer
import NIOCore
import PeerRoutingCore

extension MirrorNode {
    /// The state of a node, as `GET /debug/status` of the admin server has it in JSON. Names and meanings stay; new
    /// ones may come.
    public struct Status: Sendable, Hashable, Codable {
        /// Most keys in ``advertisedKeys``.
        public static let keyLimit = 10_000
        /// Most ``coldStarts``.
        public static let coldStartLimit = 100
        /// Most ``findings``.
        public static let findingLimit = 100

        /// A node with its identity and the IP addresses it is reached at.
        public struct PeerInfo: Sendable, Hashable, Codable {
            /// The peer ID in base58.
            public var id: String
            /// The addresses.
            public var addresses: [String]
            /// Whether a connection of the router to it is open; nil for this node itself.
            public var isConnected: Bool?
            /// Its program and version, as it says itself, at most 128 bytes; nil when it has not said.
            public var agent: String?
            /// Milliseconds in which it answers a request of the router, smoothed; nil before the first.
            public var roundTripMilliseconds: Double?

            init(_ peer: Peer) {
                id = "\(peer.id)"
                addresses = peer.addresses.map { "\($0)" }
            }

            init(_ known: KnownPeer) {
                self.init(known.peer)
                isConnected = known.isConnected
                agent = known.agentVersion.map { String(decoding: $0.utf8.prefix(128), as: UTF8.self) }
                roundTripMilliseconds = known.roundTripTime.map { $0 / .milliseconds(1) }
            }
        }

        /// The store's content, by its events.
        public struct Store: Sendable, Hashable, Codable {
            /// Whether the store has been listed since the start.
            public var isListed: Bool
            /// Images in the store.
            public var images: Int

            init(_ summary: StoreEventLog.Summary) {
                isListed = summary.isListed
                images = summary.images
            }
        }

        /// Something about the node's set-up that keeps it from mirroring, or will.
        public struct Finding: Sendable, Hashable, Codable {
            /// The name of the check, as `spegel doctor` has it.
            public var check: String
            /// `warning` or `failure`.
            public var result: String
            /// What was seen, and where.
            public var evidence: String
            /// What to do about it; nil when that is not known.
            public var fix: String?

            /// Describes a finding.
            public init(check: String, result: String, evidence: String, fix: String? = nil) {
                self.check = check
                self.result = result
                self.evidence = evidence
                self.fix = fix
            }
        }

        /// Fetching from peers since the start.
        public struct Mirror: Sendable, Hashable, Codable {
            /// Requests answered with a peer's content.
            public var hits: Int
            /// Requests for which no peer had the content.
            public var misses: Int
            /// When the last hit was, in seconds since 1970; nil for never.
            public var lastSuccess: Double?
            /// Requests being answered now.
            public var requestsUnderWay: Int
        }

        /// Content that no node held when it was asked for, and that is being fetched together with others.
        public struct ColdStart: Sendable, Hashable, Codable {
            /// The digest.
            public var digest: String
            /// Bytes that have arrived.
            public var bytes: Int64
            /// Bytes that there will be.
            public var size: Int64
            /// The peer ID of the node that it comes from; nil where this node fetches it from the upstream for all.
            public var parent: String?
            /// Peers that were given some of it meanwhile.
            public var servedPeers: Int
            /// Since it was claimed.
            public var seconds: Double

            init(_ report: ArrivalWatch.Report) {
                digest = "\(report.digest)"
                (bytes, size) = (report.bytes, report.size)
                parent = report.parent.map { "\($0)" }
                (servedPeers, seconds) = (report.servedPeers, report.seconds)
            }
        }

        /// The process of the node.
        public var processID = getpid()
        /// Whether the node is ready, as `/readyz` has it.
        public var isReady = false
        /// Why it is not; nil when it is.
        public var reason: String?
        /// `host:port` of each address the registry listens on.
        public var registryAddresses: [String] = []
        /// Open connections of clients.
        public var openConnections = 0
        /// This node; nil without a router.
        public var localPeer: PeerInfo?
        /// The peers in the router's table, nearest in the key space first.
        public var peers: [PeerInfo] = []
        /// How many keys the router has accepted for advertising.
        public var advertisedKeyCount = 0
        /// Those keys in order, at most ``keyLimit``.
        public var advertisedKeys: [String] = []
        /// What was found to be wrong with the node's set-up, as `spegel doctor` words it; empty when nothing was, or when nobody
        /// looked.
        public var findings: [Finding] = []
        /// The store; nil before the node was started.
        public var store: Store?
        /// Fetching from peers; nil without a router.
        public var mirror: Mirror?

        /// What is being fetched together with others now, at most ``coldStartLimit``; nil where nothing ever is.
        public var coldStarts: [ColdStart]?

        /// The state as a JSON object with sorted names.
        func json() throws -> ByteBuffer {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return ByteBuffer(bytes: try encoder.encode(self))
        }
    }
}
