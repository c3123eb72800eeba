import NIOConcurrencyHelpers
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// The ``PeerScoreboard`` of all event loops, and those who wait for a dial that another one makes.
final class PeerDirectory: Sendable {
    private struct State {
        var scoreboard = PeerScoreboard()
        var waiting: [PeerID: [@Sendable (Bool) -> Void]] = [:]
        var addresses: [PeerID: IPAddress] = [:]
    }

    private let state = NIOLockedValueBox(State())

    init() {}

    /// Reads or changes the scoreboard. The closure must be short.
    func withScoreboard<Result: Sendable>(_ body: (inout PeerScoreboard) -> Result) -> Result {
        state.withLockedValue { body(&$0.scoreboard) }
    }

    /// Asks to dial a peer; for ``PeerScoreboard/DialPermit/wait``, `whenDecided` is called once, on any thread, with
    /// whether the peer was reached.
    func mayDial(
        _ peer: PeerID, urgent: Bool, whenDecided: @escaping @Sendable (Bool) -> Void
    ) -> PeerScoreboard.DialPermit {
        state.withLockedValue { state in
            let permit = state.scoreboard.mayDial(peer, urgent: urgent, now: .now())
            if permit == .wait { state.waiting[peer, default: []].append(whenDecided) }
            return permit
        }
    }

    /// A dial has ended: with the address that was reached, or with nothing.
    ///
    /// - Returns: whether there is a connection to the peer, on whatever event loop.
    func dialEnded(_ peer: PeerID, reached address: IPAddress?) -> Bool {
        let (waiting, isAlive) = state.withLockedValue { state in
            state.scoreboard.dialEnded(peer, succeeded: address != nil, now: .now())
            if let address {
                // As bounded as the scoreboard, by starting over.
                if state.addresses.count >= PeerScoreboard.peerLimit { state.addresses.removeAll() }
                state.addresses[peer] = address
            }
            return (state.waiting.removeValue(forKey: peer) ?? [], state.scoreboard.isConnected(peer))
        }
        for decided in waiting { decided(address != nil) }
        return isAlive
    }

    /// The addresses of a peer, the one that was reached last in front.
    func ordered(_ peer: Peer) -> [IPAddress] {
        guard peer.addresses.count > 1, let best = state.withLockedValue({ $0.addresses[peer.id] }),
            let index = peer.addresses.firstIndex(of: best)
        else { return peer.addresses }
        var addresses = peer.addresses
        addresses.remove(at: index)
        addresses.insert(best, at: 0)
        return addresses
    }
}
