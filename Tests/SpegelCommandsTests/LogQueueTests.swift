import Foundation
import Synchronization
import Testing

@testable import SpegelCommands

/// The queue before standard error: bounded, in order, and never in the way of who logs.
@Suite struct LogQueueTests {
    /// A descriptor that takes a line only when it is told to.
    private final class GatedSink: LogSink {
        let lines = Mutex<[String]>([])
        private let gate = DispatchSemaphore(value: 0)

        func open(_ count: Int) { for _ in 0..<count { gate.signal() } }

        func write(line: [UInt8]) {
            gate.wait()
            lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
        }
    }

    @Test func linesStayInOrder() {
        let sink = GatedSink()
        let queue = LogQueue(sink: sink)
        sink.open(1000)
        for number in 0..<1000 { queue.write(line: Array("\(number)\n".utf8)) }
        queue.flush(atMost: 60)
        #expect(sink.lines.withLock { $0 } == (0..<1000).map { "\($0)\n" })
    }

    @Test func whatDoesNotFitIsDroppedAndCounted() {
        let sink = GatedSink()
        let queue = LogQueue(sink: sink, byteLimit: 100)
        // Nothing is taken: 25 lines of 4 bytes fit, the others are dropped, and nobody waits.
        for _ in 0..<500 { queue.write(line: Array("abc\n".utf8)) }
        sink.open(25)
        queue.flush(atMost: 60)
        sink.open(10)
        queue.write(line: Array("next\n".utf8))
        queue.flush(atMost: 60)
        let lines = sink.lines.withLock { $0 }
        #expect(lines.count == 27)
        #expect(lines[25].contains("\"lines\":475"))
        #expect(lines[26] == "next\n")
    }

    @Test func flushingDoesNotWaitForever() {
        let sink = GatedSink()
        let queue = LogQueue(sink: sink)
        queue.write(line: [0x0a])
        queue.flush(atMost: 0.05)
        #expect(sink.lines.withLock { $0 }.isEmpty)
        sink.open(1)
        queue.flush(atMost: 60)
        #expect(sink.lines.withLock { $0 }.count == 1)
    }
}
