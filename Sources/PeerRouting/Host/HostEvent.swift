/// What a ``Host`` tells its owner.
public enum HostEvent: Sendable {
    /// Identify finished on a new connection, or (`isPush`) the peer told of a change over one that exists: what it
    /// speaks and where it can be dialled.
    case identified(PeerID, protocols: [String], addresses: [Multiaddr], isPush: Bool)
    /// The last connection to the peer ended.
    case disconnected(PeerID)
    /// Our own advertised addresses changed; peers have been told.
    case addressesChanged([Multiaddr])
}
