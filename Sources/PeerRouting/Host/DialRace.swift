import NIOConcurrencyHelpers
import NIOCore

/// The dials of one peer's addresses: one after the other, the next starting early when one is slow; the first
/// secured connection wins.
final class DialRace: Sendable {
    /// How long an address has before the next is tried besides it.
    private static let stagger: TimeAmount = .milliseconds(250)

    private struct State {
        var hasBegun = false
        var remaining: [(target: DialTarget, address: Multiaddr)]
        var active = 0
        var failures: [(Multiaddr, HostError)] = []
    }

    /// Dials one address; asks whether the race is over before it secures the connection; reports once.
    typealias Dial =
        @Sendable (
            _ target: DialTarget, _ address: Multiaddr, _ isOver: @escaping @Sendable () -> Bool,
            _ done: @escaping @Sendable (Result<ConnectionHandle, HostError>) -> Void
        ) -> Void

    let completion = Completion<PeerID>()
    private let state: NIOLockedValueBox<State>
    private let dial: Dial
    private let ended: RunOnce
    private let eventLoop: any EventLoop

    /// - Parameter ended: called once, before the result is known to anybody.
    init(
        _ targets: [(target: DialTarget, address: Multiaddr)], eventLoop: any EventLoop, dial: @escaping Dial,
        ended: @escaping @Sendable () -> Void
    ) {
        state = NIOLockedValueBox(State(remaining: targets))
        self.eventLoop = eventLoop
        self.dial = dial
        self.ended = RunOnce(ended)
    }

    /// Starts with the first address, when it is called for the first time.
    func begin() {
        let isFirst = state.withLockedValue { state in
            defer { state.hasBegun = true }
            return !state.hasBegun
        }
        if isFirst { advance() }
    }

    private func advance() {
        guard !completion.isDone else { return }
        let next = state.withLockedValue { state -> (target: DialTarget, address: Multiaddr)? in
            guard !state.remaining.isEmpty else { return nil }
            state.active += 1
            return state.remaining.removeFirst()
        }
        guard let next else { return }
        dial(next.target, next.address, { self.completion.isDone }) { result in
            switch result {
            case .success(let handle):
                self.ended.run()
                self.completion.succeed(handle.peer)
            case .failure(let error):
                self.failed(next.address, error)
            }
        }
        if state.withLockedValue({ !$0.remaining.isEmpty }) {
            eventLoop.scheduleTask(in: Self.stagger) { self.advance() }
        }
    }

    private func failed(_ address: Multiaddr, _ error: HostError) {
        let failures = state.withLockedValue { state -> [(Multiaddr, HostError)]? in
            state.active -= 1
            state.failures.append((address, error))
            return state.active == 0 && state.remaining.isEmpty ? state.failures : nil
        }
        guard let failures else {
            advance()
            return
        }
        ended.run()
        // A single reason is told as it is.
        if failures.count == 1, let only = failures.first {
            completion.fail(only.1)
        } else {
            completion.fail(HostError.dialFailed(failures.map { "\($0.0): \($0.1)" }.joined(separator: "; ")))
        }
    }
}
