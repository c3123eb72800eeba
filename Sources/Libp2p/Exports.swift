// The vocabulary of peers is part of this module's interface: `PeerID`, `Multiaddr`, `IPAddress`, `AddressPolicy`.
@_exported public import PeerRoutingCore
