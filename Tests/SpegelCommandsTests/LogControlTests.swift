import Foundation
import Logging
import Synchronization
import Testing

@testable import SpegelCommands

@Suite struct LogControlTests {
    private final class Lines: LogSink {
        private let stored = Mutex<[String]>([])
        func write(line: [UInt8]) { stored.withLock { $0.append(String(decoding: line, as: UTF8.self)) } }
        var all: [String] { stored.withLock { $0 } }
    }

    private func key(_ message: String, line: UInt = 1) -> LogRepeats.Key {
        LogRepeats.Key(file: "f", line: line, message: message)
    }

    @Test func theLevelChangesForAllLoggers() {
        let lines = Lines()
        let control = LogControl(level: .info)
        func logger(_ lowest: Logger.Level = .trace) -> Logger {
            Logger(label: "test") { _ in
                LineLogHandler(control: control, lowest: lowest, format: .json, sink: lines)
            }
        }
        let (ours, library) = (logger(), logger(.info))
        var copy = ours
        copy[metadataKey: "a"] = "b"
        copy.debug("hidden")
        control.level = .debug
        copy.debug("shown")
        ours.debug("shown")
        library.debug("hidden")
        library.info("shown")
        control.level = control.initialLevel
        ours.debug("hidden")
        #expect(lines.all.count == 3)
        #expect(lines.all.allSatisfy { $0.contains(#""msg":"shown""#) })
    }

    @Test func repeatsAreCountedAndReported() {
        var repeats = LogRepeats()
        for number in 0..<25 {
            #expect(repeats.admit(key("a"), at: 100).isAdmitted == (number < LogRepeats.limit))
        }
        // Another place or message is not held back.
        #expect(repeats.admit(key("b"), at: 100).isAdmitted)
        #expect(repeats.admit(key("a", line: 2), at: 100).isAdmitted)
        // After the window, with whatever event comes first.
        let (isAdmitted, ended) = repeats.admit(key("c"), at: 100 + LogRepeats.window)
        #expect(isAdmitted)
        #expect(ended == [LogRepeats.Ended(key: key("a"), suppressed: 25 - LogRepeats.limit)])
        #expect(repeats.admit(key("a"), at: 100 + LogRepeats.window) == (true, []))
    }

    @Test func kindsAreLimited() {
        var repeats = LogRepeats()
        for number in 0..<(LogRepeats.keyLimit * 2) {
            for _ in 0..<20 { _ = repeats.admit(key("\(number)"), at: 0) }
        }
        #expect(
            repeats.admit(key("x"), at: LogRepeats.window).ended.count == LogRepeats.keyLimit)
    }

    @Test func warningsAreLimitedAndInformationIsNot() {
        let lines = Lines()
        let control = LogControl(level: .info)
        let logger = Logger(label: "test") { _ in LineLogHandler(control: control, format: .json, sink: lines) }
        for number in 0..<100 {
            logger.warning("the store failed", metadata: ["number": "\(number)"])
            logger.info("OCI event")
        }
        #expect(lines.all.filter { $0.contains("the store failed") }.count == LogRepeats.limit)
        #expect(lines.all.filter { $0.contains("OCI event") }.count == 100)
    }

    @Test func textIsForPeople() throws {
        let lines = Lines()
        let logger = Logger(label: "test") { _ in LineLogHandler(logLevel: .debug, format: .text, sink: lines) }
        logger.warning("a peer failed", metadata: ["peer": "12D3", "reason": "two words", "empty": "", "count": "3"])
        let line = try #require(lines.all.first)
        #expect(
            line.wholeMatch(
                of:
                    /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN  a peer failed count=3 empty="" peer=12D3 reason="two words"\n/
            )
                != nil, "\(line)")
    }

    @Test func textCannotBreakLinesOrCommandATerminal() throws {
        let lines = Lines()
        let logger = Logger(label: "test") { _ in LineLogHandler(logLevel: .debug, format: .text, sink: lines) }
        logger.info("a\nb\u{1b}[31m", metadata: ["x\r": "\u{202e}q\"\u{9b}2J \u{7f}"])
        let line = try #require(lines.all.first)
        #expect(line.hasSuffix(#"a\nb\u{1b}[31m x\u{d}="\u{202e}q\"\u{9b}2J \u{7f}""# + "\n"))
        #expect(line.unicodeScalars.filter { $0.value < 0x20 }.count == 1)
        logger.info("\(String(repeating: "é", count: 100_000))")
        #expect(lines.all[1].utf8.count < LineLogHandler.maximumText + 100)
    }
}
