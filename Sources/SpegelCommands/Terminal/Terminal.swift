#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Standard output, and whether a person looks at it.
package struct Terminal: Sendable {
    /// Whether lines may be redrawn and coloured.
    package var isInteractive: Bool
    /// Characters in a line.
    package var width: Int
    private let sink: any LogSink

    /// The process's standard output.
    package static var standardOutput: Terminal {
        var size = winsize()
        let isTerminal = isatty(1) == 1
        let known = isTerminal && ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        let isDumb = getenv("TERM").map { String(cString: $0) == "dumb" } ?? true
        return Terminal(
            isInteractive: isTerminal && !isDumb, width: known ? Int(size.ws_col) : 80,
            sink: FileDescriptorSink(descriptor: 1))
    }

    init(isInteractive: Bool, width: Int, sink: any LogSink) {
        self.isInteractive = isInteractive
        self.width = width
        self.sink = sink
    }

    /// Writes text as it is.
    package func write(_ text: String) {
        sink.write(line: Array(text.utf8))
    }

    /// Writes a line.
    package func line(_ text: String = "") {
        write(text + "\n")
    }

    /// Emphasis for a heading.
    package func bold(_ text: String) -> String {
        isInteractive ? "\u{1b}[1m\(text)\u{1b}[0m" : text
    }

    /// Emphasis for what is well.
    package func green(_ text: String) -> String {
        isInteractive ? "\u{1b}[32m\(text)\u{1b}[0m" : text
    }

    /// Emphasis for what is wrong.
    package func red(_ text: String) -> String {
        isInteractive ? "\u{1b}[31m\(text)\u{1b}[0m" : text
    }
}
