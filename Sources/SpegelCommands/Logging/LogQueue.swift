import Foundation

/// Log lines on their way to a descriptor, written by a thread of their own: a reader that stops reading standard error does
/// not stop the daemon.
///
/// At most ``byteLimit`` bytes wait; lines beyond are dropped, and a line says how many when there is room again.
final class LogQueue: LogSink, @unchecked Sendable {
    /// Bytes that wait at most.
    static let byteLimit = 1 << 20

    /// The process's standard error.
    static let standardError = LogQueue(sink: FileDescriptorSink(descriptor: 2))

    private let sink: any LogSink
    private let byteLimit: Int
    /// Guards everything below.
    private let condition = NSCondition()
    private var lines: [[UInt8]] = []
    private var bytes = 0
    private var dropped = 0
    /// Whether the thread has lines that are not written yet.
    private var isWriting = false
    private var isStarted = false

    init(sink: any LogSink, byteLimit: Int = LogQueue.byteLimit) {
        self.sink = sink
        self.byteLimit = byteLimit
    }

    func write(line: [UInt8]) {
        condition.lock()
        defer { condition.unlock() }
        guard bytes + line.count <= byteLimit else {
            dropped += 1
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
            let thread = Thread { [self] in drain() }
            thread.name = "log"
            thread.start()
        }
        condition.broadcast()
    }

    /// Waits until everything is written, or until some seconds have passed.
    func flush(atMost limit: TimeInterval) {
        let deadline = Date().addingTimeInterval(limit)
        condition.lock()
        defer { condition.unlock() }
        while isWriting || !lines.isEmpty {
            guard condition.wait(until: deadline) else { return }
        }
    }

    private func drain() {
        while true {
            condition.lock()
            isWriting = false
            condition.broadcast()
            while lines.isEmpty { condition.wait() }
            let batch = lines
            lines = []
            isWriting = true
            condition.unlock()
            for line in batch {
                sink.write(line: line)
                // Room is made when a line is out, not before: what waits here is in memory, too.
                condition.lock()
                bytes = max(0, bytes - line.count)
                condition.unlock()
            }
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
