// The vocabulary of peers is part of this module's interface: `PeerID`, `Peer`, `PeerRouter`, `Multiaddr`, `IPAddress`.
@_exported public import PeerRoutingCore
