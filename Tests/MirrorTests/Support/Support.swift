import Logging
import NIOCore
import OCIDistribution
import PeerRouting

@testable import MirrorServer

/// A moment of a test's own clock.
func at(_ milliseconds: Int64) -> NIODeadline { .uptimeNanoseconds(1_000_000_000) + .milliseconds(milliseconds) }

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A peer whose identity follows from a number.
func peer(_ number: UInt8, _ addresses: [IPAddress] = [.loopbackV4]) throws -> Peer {
    try Peer(id: NodeIdentity(seed: [UInt8](repeating: number, count: 32)).peerID, addresses: addresses)
}
