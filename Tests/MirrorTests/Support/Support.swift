import Logging
import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport

@testable import MirrorServer

/// A moment of a test's own clock.
func at(_ milliseconds: Int64) -> NIODeadline { .uptimeNanoseconds(1_000_000_000) + .milliseconds(milliseconds) }

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

private let addressesGiven = NIOLockedValueBox<UInt32>(0)

/// A loopback address that nothing else in this process uses, so that a port picked on another one is free there.
func unusedAddress() -> IPAddress {
    let number = addressesGiven.withLockedValue { given -> UInt32 in
        given += 1
        return given
    }
    return .v4(0x7f01_0000 + number)
}

/// A peer whose identity is derived from a number.
func peer(_ number: UInt8, _ addresses: [IPAddress] = [.loopbackV4]) throws -> Peer {
    try Peer(id: NodeIdentity(seed: [UInt8](repeating: number, count: 32)).peerID, addresses: addresses)
}
