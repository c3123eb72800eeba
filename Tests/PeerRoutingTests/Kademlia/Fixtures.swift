import NIOCore

@testable import PeerRouting

/// The peers of the test vectors, whose seeds are one byte repeated.
func vectorPeer(_ byte: UInt8) throws -> PeerID {
    try NodeIdentity(seed: [UInt8](repeating: byte, count: 32)).peerID
}

/// Any peer, the same for the same number, without the cost of making keys.
func syntheticPeer(_ number: Int) -> PeerID {
    var random = SplitMix64(seed: UInt64(truncatingIfNeeded: number) &* 77 &+ 5)
    var bytes: [UInt8] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]
    for _ in 0..<4 { withUnsafeBytes(of: random.next()) { bytes.append(contentsOf: $0) } }
    guard let peer = try? PeerID(bytes: bytes) else { preconditionFailure("not a peer ID") }
    return peer
}

func contact(_ number: Int) -> KadContact {
    let address = IPAddress.v4(0x0a00_0000 | UInt32(truncatingIfNeeded: number + 1))
    return KadContact(id: syntheticPeer(number), addresses: [Multiaddr(address, tcpPort: 5001)])
}

/// A moment of the tests' own clock.
func at(_ seconds: Double) -> NIODeadline {
    .uptimeNanoseconds(1_000_000_000_000) + .nanoseconds(Int64(seconds * 1_000_000_000))
}
