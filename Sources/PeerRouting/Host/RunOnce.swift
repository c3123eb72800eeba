import Synchronization

/// Tells the first who asks, from whatever thread, that it is the first.
final class FirstOnly: Sendable {
    private let isTaken = Atomic<Bool>(false)

    func claim() -> Bool {
        !isTaken.exchange(true, ordering: .acquiringAndReleasing)
    }
}

/// Runs something the first time it is asked to.
final class RunOnce: Sendable {
    private let first = FirstOnly()
    private let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
    }

    func run() {
        if first.claim() { body() }
    }
}
