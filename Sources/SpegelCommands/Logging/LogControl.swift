import Logging
import Synchronization

/// What all loggers of the program share: the level, which can be changed while it runs, and how often warnings were
/// repeated.
package final class LogControl: Sendable {
    /// The level of the start (`--log-level`), to which ``reset()`` returns.
    let initialLevel: Logger.Level
    private let current: Atomic<Int>
    private let repeats = Mutex(LogRepeats())

    init(level: Logger.Level) {
        initialLevel = level
        current = Atomic(Self.levels.firstIndex(of: level) ?? 0)
    }

    private static let levels = Logger.Level.allCases

    /// The level now.
    var level: Logger.Level {
        get { Self.levels[current.load(ordering: .relaxed)] }
        set { current.store(Self.levels.firstIndex(of: newValue) ?? 0, ordering: .relaxed) }
    }

    /// Whether an event is to be written, and the repeats to report of before.
    func admit(_ key: LogRepeats.Key, at seconds: Int64) -> (isAdmitted: Bool, ended: [LogRepeats.Ended]) {
        repeats.withLock { $0.admit(key, at: seconds) }
    }
}

/// Limits how often one event is written: ``limit`` times a ``window``. The rest is counted, and reported with the next event
/// after the window.
///
/// A value type without I/O.
struct LogRepeats: Sendable {
    /// Events of one kind that are written within a window.
    static let limit = 10
    /// Seconds of a window.
    static let window: Int64 = 60
    /// Kinds that are told apart. Beyond it events are written without a limit until windows end.
    static let keyLimit = 256

    /// Events of one place in the source with one message are of one kind.
    struct Key: Hashable, Sendable {
        var file: String
        var line: UInt
        var message: String
    }

    /// A window in which events were not written.
    struct Ended: Hashable, Sendable {
        var key: Key
        var suppressed: Int
    }

    private struct Entry {
        var start: Int64
        var count = 0
    }

    private var entries: [Key: Entry] = [:]
    private var nextEnd = Int64.max

    init() {}

    /// Counts an event.
    mutating func admit(_ key: Key, at seconds: Int64) -> (isAdmitted: Bool, ended: [Ended]) {
        let ended = seconds >= nextEnd ? endWindows(at: seconds) : []
        guard entries[key] != nil || entries.count < Self.keyLimit else { return (true, ended) }
        var entry = entries[key] ?? Entry(start: seconds)
        entry.count += 1
        entries[key] = entry
        nextEnd = min(nextEnd, entry.start + Self.window)
        return (entry.count <= Self.limit, ended)
    }

    private mutating func endWindows(at seconds: Int64) -> [Ended] {
        var ended: [Ended] = []
        nextEnd = .max
        for (key, entry) in entries {
            if seconds >= entry.start + Self.window {
                entries[key] = nil
                if entry.count > Self.limit { ended.append(Ended(key: key, suppressed: entry.count - Self.limit)) }
            } else {
                nextEnd = min(nextEnd, entry.start + Self.window)
            }
        }
        return ended.sorted { ($0.key.file, $0.key.line, $0.key.message) < ($1.key.file, $1.key.line, $1.key.message) }
    }
}
