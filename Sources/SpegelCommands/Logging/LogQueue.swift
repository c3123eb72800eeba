import NIOConcurrencyHelpers
import NIOPosix

/// Log lines on their way to a descriptor, written by a thread of their own: a reader that stops reading standard error does
/// not stop the daemon.
///
/// At most ``byteLimit`` bytes wait; lines beyond are dropped, and a line says how many when there is room again.
final class LogQueue: LogSink, @unchecked Sendable {
    /// Bytes that wait at most.
    static let byteLimit = 1 << 20

    /// The process's standard error.
    static let standardError = LogQueue(sink: FileDescriptorSink(descriptor: 2))

    private enum State {
        /// Every line is written.
        case idle
        /// ``lines`` wait for the thread.
        case filled
        /// The thread writes the last batch.
        case writing
    }

    private let sink: any LogSink
    private let byteLimit: Int
    /// One thread, that of ``drain()``.
    private let thread = NIOThreadPool(numberOfThreads: 1)
    /// Guards everything below.
    private let state = ConditionLock(value: State.idle)
    private var lines: [[UInt8]] = []
    private var bytes = 0
    private var dropped = 0
    private var isStarted = false

    init(sink: any LogSink, byteLimit: Int = LogQueue.byteLimit) {
        self.sink = sink
        self.byteLimit = byteLimit
    }

    func write(line: [UInt8]) {
        state.lock()
        guard bytes + line.count <= byteLimit else {
            dropped += 1
            state.unlock()
            return
        }
        if dropped > 0 {
            lines.append(Self.notice(of: dropped))
            dropped = 0
        }
        lines.append(line)
        bytes += line.count
        if !isStarted {
            isStarted = true
            thread.start()
            thread.submit { [self] _ in drain() }
        }
        state.unlock(withValue: .filled)
    }

    /// Waits until everything is written, or until so many seconds have passed.
    func flush(atMost limit: Double) {
        if state.lock(whenValue: .idle, timeoutSeconds: limit) { state.unlock() }
    }

    private func drain() {
        while true {
            state.lock(whenValue: .filled)
            let batch = lines
            lines = []
            state.unlock(withValue: .writing)
            for line in batch {
                sink.write(line: line)
                // Room is made when a line is out, not before: what waits here is in memory, too.
                state.lock()
                bytes = max(0, bytes - line.count)
                state.unlock()
            }
            state.lock()
            state.unlock(withValue: lines.isEmpty ? .idle : .filled)
        }
    }

    private static func notice(of count: Int) -> [UInt8] {
        var json = JSONLine()
        json.begin()
        json.field("time", text: Timestamp.now.description)
        json.field("level", text: "WARN")
        json.field("msg", text: "log lines were dropped, because standard error was not read fast enough")
        json.field("lines", raw: String(count))
        json.end()
        json.bytes.append(0x0a)
        return json.bytes
    }
}
