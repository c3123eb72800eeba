import NIOCore

/// The part of the network one search has shown completely, and thus the keys whose closest peers are known from it.
struct NetworkCoverage: Sendable {
    /// Peers a region must hold before other keys in it rely on it; where fewer share a prefix, each key gets a search
    /// of its own, so that none is left with too few keepers.
    private static let leastPeers = 8
    /// As many bits as a position has.
    private static let onlyOrigin = 256

    let origin: KadKey
    let peers: [KadContact]
    /// Keys that share so many bits with the origin are covered; 0 when the whole network is known.
    let depth: Int
    let expires: NIODeadline

    /// What a search for `origin` found: its nearest peers, `k` when there are more in the network.
    ///
    /// - Parameter sawEverybody: Whether all peers it heard of answered. If not, fewer than `k` peers are what is left
    ///   of an accident, and say nothing about other keys.
    init(origin: KadKey, peers: [KadContact], k: Int, sawEverybody: Bool, expires: NIODeadline) {
        self.origin = origin
        self.peers = peers
        self.expires = expires
        guard peers.count >= k, let farthest = peers.map({ $0.key.distance(to: origin) }).max() else {
            depth = sawEverybody ? 0 : Self.onlyOrigin
            return
        }
        // The farthest peer's subtree may hold peers that were not found; everything nearer was.
        let complete = farthest.leadingZeroBits + 1
        let inside = peers.count { $0.key.commonPrefixLength(with: origin) >= complete }
        depth = inside >= Self.leastPeers ? complete : Self.onlyOrigin
    }

    /// Whether the peers nearest to `key` are known.
    func covers(_ key: KadKey) -> Bool {
        key == origin || depth == 0 || key.commonPrefixLength(with: origin) >= depth
    }

    /// The `k` nearest peers to a covered key.
    func nearest(to key: KadKey, k: Int) -> [KadContact] {
        guard peers.count > 1 else { return peers }
        return Array(peers.sorted { $0.key.distance(to: key) < $1.key.distance(to: key) }.prefix(k))
    }
}
