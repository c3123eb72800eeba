// Identities, connections and the vocabulary of peers are part of this module's interface: `NodeIdentity`, `HostLimits`,
// `PeerID`, `Peer`, `PeerRouter`, `Multiaddr`, `IPAddress`.
@_exported public import Libp2p
@_exported public import PeerRoutingCore
