import Synchronization
import Testing

@testable import SpegelCommands

@Suite struct TerminalTests {
    private final class Screen: LogSink {
        private let written = Mutex("")

        func write(line: [UInt8]) {
            written.withLock { $0 += String(decoding: line, as: UTF8.self) }
        }

        var text: String { written.withLock { $0 } }
    }

    @Test(
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1_048_575, "1.0 MiB"),
            (209_780_852, "200.1 MiB"), (.max, "8.0 EiB"),
        ] as [(Int64, String)])
    func bytes(count: Int64, text: String) {
        #expect(Quantity.bytes(count) == text)
    }

    @Test(arguments: [
        (Duration.microseconds(840), "0.8 ms"), (.milliseconds(12), "12 ms"), (.milliseconds(3449), "3.4 s"),
        (.seconds(125), "2 min 5 s"), (.zero, "0.0 ms"),
    ])
    func times(duration: Duration, text: String) {
        #expect(Quantity.time(duration) == text)
    }

    @Test func tableColumns() {
        var table = Table([("blob", .left), ("size", .right), ("state", .left)])
        table.add(["a", "10 B", "ok"])
        table.add(["longer", "1 B"])
        #expect(table.lines == ["blob    size  state", "a       10 B  ok", "longer   1 B"])
    }

    @Test func barsKeepTheirWidth() {
        for width in [0, 1, 10, 40, 80, 200] {
            for (done, total) in [(0, 100), (50, 100), (100, 100), (200, 100), (0, 0), (-1, 5)] as [(Int64, Int64)] {
                let bar = ProgressDisplay.bar(label: "layer", done: done, total: total, rate: "1.0 MiB/s", width: width)
                #expect(bar.count <= width)
            }
        }
        let half = ProgressDisplay.bar(label: "x", done: 1, total: 2, rate: "-", width: 60)
        #expect(half.filter { $0 == "█" }.count == half.filter { $0 == "░" }.count)
    }

    @Test func withoutATerminalThereAreOnlyLines() {
        let screen = Screen()
        let display = ProgressDisplay(terminal: Terminal(isInteractive: false, width: 80, sink: screen))
        display.start("a", label: "a", total: 10)
        display.update("a", done: 5)
        display.finish("a", line: "a done")
        display.end()
        #expect(screen.text == "a done\n")
    }

    @Test func onATerminalTheBarsAreErasedBeforeLines() {
        let screen = Screen()
        let display = ProgressDisplay(terminal: Terminal(isInteractive: true, width: 80, sink: screen))
        display.start("a", label: "a", total: 10)
        display.start("b", label: "b", total: 10)
        display.finish("a", line: "a done")
        display.end()
        #expect(screen.text.contains("a done\nb ░"))
        #expect(screen.text.hasSuffix("\u{1b}[1A\r\u{1b}[J"))
    }
}
