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

        /// A node with its identity and the IP addresses it is reached at.
        public struct PeerInfo: Sendable, Hashable, Codable {
            /// The peer ID in base58.
            public var id: String
            /// The addresses.
            public var addresses: [String]

            init(_ peer: Peer) {
                id = "\(peer.id)"
                addresses = peer.addresses.map { "\($0)" }
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
        /// The store; nil before the node was started.
        public var store: Store?
        /// Fetching from peers; nil without a router.
        public var mirror: Mirror?

        /// The state as a JSON object with sorted names.
        func json() throws -> ByteBuffer {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return ByteBuffer(bytes: try encoder.encode(self))
        }
    }
}
