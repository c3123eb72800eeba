import Synchronization

/// Shows several things that make progress: bars that are redrawn on a terminal, one line for each finished thing elsewhere.
final class ProgressDisplay: Sendable {
    /// Bars that are drawn at the same time; what else is under way is only counted.
    private static let maximumBars = 12
    private static let interval: Duration = .milliseconds(80)

    private struct Item {
        var key: String
        var label: String
        var total: Int64
        var done: Int64 = 0
        var began: ContinuousClock.Instant
    }

    private struct State {
        /// What is under way, in the order of its start.
        var items: [Item] = []
        var drawnLines = 0
        var lastDrawing: ContinuousClock.Instant?
    }

    private let terminal: Terminal
    private let clock = ContinuousClock()
    private let state = Mutex(State())

    /// A display on a terminal, or on whatever stands in for one.
    init(terminal: Terminal) {
        self.terminal = terminal
    }

    /// Something begins.
    func start(_ key: String, label: String, total: Int64) {
        state.withLock { state in
            guard !state.items.contains(where: { $0.key == key }) else { return }
            state.items.append(Item(key: key, label: label, total: total, began: clock.now))
            draw(&state, force: false)
        }
    }

    /// It has come so far.
    func update(_ key: String, done: Int64) {
        state.withLock { state in
            guard let index = state.items.firstIndex(where: { $0.key == key }) else { return }
            state.items[index].done = done
            draw(&state, force: false)
        }
    }

    /// It is over; `line` stays on the screen.
    func finish(_ key: String, line: String) {
        state.withLock { state in
            state.items.removeAll { $0.key == key }
            erase(&state)
            terminal.line(line)
            draw(&state, force: true)
        }
    }

    /// Something is said between the bars.
    func note(_ line: String) {
        state.withLock { state in
            erase(&state)
            terminal.line(line)
            draw(&state, force: true)
        }
    }

    /// Takes the bars away.
    func end() {
        state.withLock { state in
            state.items = []
            erase(&state)
        }
    }

    private func erase(_ state: inout State) {
        guard state.drawnLines > 0 else { return }
        // Up to the first drawn line, then clear to the end of the screen.
        terminal.write("\u{1b}[\(state.drawnLines)A\r\u{1b}[J")
        state.drawnLines = 0
    }

    private func draw(_ state: inout State, force: Bool) {
        guard terminal.isInteractive else { return }
        let now = clock.now
        if !force, let last = state.lastDrawing, now - last < Self.interval { return }
        state.lastDrawing = now
        erase(&state)
        let shown = state.items.prefix(Self.maximumBars)
        for item in shown {
            let rate = Quantity.rate(item.done, in: now - item.began)
            terminal.line(
                Self.bar(label: item.label, done: item.done, total: item.total, rate: rate, width: terminal.width - 1))
        }
        state.drawnLines = shown.count
    }

    /// One bar: label, bar, share, size and rate, in at most `width` characters.
    static func bar(label: String, done: Int64, total: Int64, rate: String, width: Int) -> String {
        let share = total > 0 ? min(1, max(0, Double(done) / Double(total))) : 0
        let percent = String(Int(share * 100))
        let figures =
            " \(String(repeating: " ", count: 3 - percent.count))\(percent)% "
            + "\(Quantity.bytes(done))/\(Quantity.bytes(total)) \(rate)"
        let room = width - label.count - figures.count - 3
        guard room >= 5 else { return String((label + figures).prefix(max(0, width))) }
        let length = min(room, 40)
        let filled = Int(share * Double(length))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: length - filled)
        return "\(label) \(bar)\(figures)"
    }
}
