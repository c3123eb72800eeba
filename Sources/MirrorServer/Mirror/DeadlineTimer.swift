import NIOCore
import Synchronization

/// Calls its action once when a ``StallAdjustedClock`` reaches the deadline. The deadline can be moved.
///
/// Confined to the clock's event loop.
final class DeadlineTimer {
    private let clock: StallAdjustedClock
    private let action: () -> Void
    private var deadline: NIODeadline?
    /// The entry in the timers of the event loop, while it has one, and the time at which it is called.
    private var entry: (index: Int, time: NIODeadline)?

    init(clock: StallAdjustedClock, action: @escaping () -> Void) {
        self.clock = clock
        self.action = action
    }

    /// Moves the deadline; nil for none.
    func set(_ deadline: NIODeadline?) {
        guard deadline != self.deadline else { return }
        self.deadline = deadline
        guard let deadline else { return removeEntry() }
        // The clock runs behind the event loop's, never ahead, so that nothing is called late.
        if let entry, entry.time <= deadline { return }
        removeEntry()
        addEntry(deadline)
    }

    /// Ends it; the action is not called.
    func cancel() { set(nil) }

    private func addEntry(_ deadline: NIODeadline) {
        let time = NIODeadline.now() + max(deadline - clock.now, StallAdjustedClock.shortestWait)
        entry = (clock.timers.add(self, at: time), time)
    }

    private func removeEntry() {
        if let entry { clock.timers.remove(entry.index) }
        entry = nil
    }

    fileprivate func entryRemoved() { entry = nil }

    fileprivate func fired() {
        guard let deadline else { return }
        // The deadline was moved, or the process was stalled meanwhile.
        guard clock.now >= deadline else { return addEntry(deadline) }
        self.deadline = nil
        action()
    }
}

/// The timers of one event loop: a table of times, and one task of the event loop that waits for the earliest.
///
/// A request sets half a dozen timers and hardly any of them fires. So setting and cancelling one is a write to the table, and
/// only firing goes through all of it. Confined to its event loop; it has as many entries as requests and dials have timers.
final class EventLoopTimers {
    private struct Entry {
        var timer: DeadlineTimer?
        var time: NIODeadline
    }

    let eventLoop: any EventLoop
    private var entries: [Entry] = []
    private var free: [Int] = []
    /// When the task of the event loop runs; nil while there is none. An entry that it waited for may have gone.
    private var wakeUp: (task: Scheduled<Void>, time: NIODeadline)?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Clocks in use. Their last reference may go on another thread.
    private let clocks = Synchronization.Atomic<Int>(0)

    /// A clock begins to be in use.
    ///
    /// - Returns: whether it is the only one.
    func clockStarted() -> Bool { clocks.add(1, ordering: .relaxed).oldValue == 0 }

    /// A clock is no longer in use.
    ///
    /// - Returns: whether it was the last one.
    func clockEnded() -> Bool { clocks.subtract(1, ordering: .relaxed).newValue == 0 }

    /// Timers that are set.
    var count: Int { entries.count - free.count }

    /// Calls `timer` at a time, unless it is removed before.
    ///
    /// - Returns: its index for ``remove(_:)``.
    fileprivate func add(_ timer: DeadlineTimer, at time: NIODeadline) -> Int {
        let entry = Entry(timer: timer, time: time)
        let index: Int
        if let last = free.popLast() {
            index = last
            entries[index] = entry
        } else {
            index = entries.count
            entries.append(entry)
        }
        if wakeUp.map({ time < $0.time }) ?? true { wake(at: time) }
        return index
    }

    fileprivate func remove(_ index: Int) {
        entries[index].timer = nil
        free.append(index)
    }

    private func wake(at time: NIODeadline) {
        wakeUp?.task.cancel()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        wakeUp = (eventLoop.scheduleTask(deadline: time) { bound.value.timePassed() }, time)
    }

    private func timePassed() {
        wakeUp = nil
        let now = NIODeadline.now()
        var due: [DeadlineTimer] = []
        var next: NIODeadline?
        for index in entries.indices {
            guard let timer = entries[index].timer else { continue }
            let time = entries[index].time
            if time <= now {
                // Before any of them is called, which may cancel others.
                timer.entryRemoved()
                due.append(timer)
                remove(index)
            } else if next.map({ time < $0 }) ?? true {
                next = time
            }
        }
        if let next { wake(at: next) } else { (entries, free) = ([], []) }
        for timer in due { timer.fired() }
    }
}
