import NIOCore

/// Notices a peer whose body does not come on: nothing at all, or so little that it would never end.
///
/// Time only counts while bytes are wanted; a slow client is not the peer's fault.
struct ProgressMonitor: Sendable {
    /// The time within which ``minimum`` bytes must come.
    let window: TimeAmount
    /// Fewest bytes of a window. The end of the body may come with fewer.
    let minimum: Int64

    private var windowStart: NIODeadline
    private var bytes: Int64 = 0
    private var isPaused = false

    init(window: TimeAmount, minimum: Int64, now: NIODeadline) {
        self.window = window
        self.minimum = minimum
        windowStart = now
    }

    /// When to look next; nil while paused.
    var deadline: NIODeadline? { isPaused ? nil : windowStart + window }

    /// Bytes came.
    mutating func received(_ count: Int) {
        bytes += Int64(count)
    }

    /// No bytes are wanted for now.
    mutating func pause() {
        isPaused = true
    }

    /// Bytes are wanted again; a new window begins after a pause.
    mutating func resume(now: NIODeadline) {
        guard isPaused else { return }
        isPaused = false
        windowStart = now
        bytes = 0
    }

    /// Whether the peer has stalled. Otherwise a window that is over is followed by a new one.
    mutating func hasStalled(now: NIODeadline) -> Bool {
        guard !isPaused, now >= windowStart + window else { return false }
        if bytes < max(minimum, 1) { return true }
        windowStart = now
        bytes = 0
        return false
    }
}
