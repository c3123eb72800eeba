import Logging

/// The form of log lines (`--log-format`).
package enum LogFormat: String, Sendable {
    /// One JSON object a line: `time`, `level`, `source`, `msg`, then the fields in the order of their names.
    case json
    /// `2026-11-27T10:20:30.123Z INFO message name=value …`, for a terminal.
    case text
}

/// Writes one line for each event, as a JSON object or as text.
public struct LineLogHandler: LogHandler {
    /// The largest text of one field, in bytes; more is cut off, so that a line cannot grow without bound.
    static let maximumText = 16 * 1024
    /// Names that a field cannot have.
    private static let reserved: Set<String> = ["time", "level", "source", "msg"]

    /// Fields of every event.
    public var metadata: Logger.Metadata = [:]
    /// Events below this level are dropped. While the handler follows a ``LogControl``, setting it has no effect.
    public var logLevel: Logger.Level {
        get { control.map { max($0.level, lowestLevel) } ?? ownLevel }
        set { ownLevel = newValue }
    }
    /// Fields from the task's context.
    public var metadataProvider: Logger.MetadataProvider?
    private var ownLevel: Logger.Level
    /// The lowest level that is logged, whatever the control says.
    private var lowestLevel = Logger.Level.trace
    private let control: LogControl?
    private let format: LogFormat
    private let sink: any LogSink

    /// A handler that writes to standard error.
    public init(logLevel: Logger.Level) {
        self.init(logLevel: logLevel, sink: LogQueue.standardError)
    }

    init(logLevel: Logger.Level, format: LogFormat = .json, sink: any LogSink) {
        ownLevel = logLevel
        control = nil
        self.format = format
        self.sink = sink
    }

    /// A handler whose level follows `control`, but is never below `lowest`.
    init(control: LogControl, lowest: Logger.Level = .trace, format: LogFormat, sink: any LogSink) {
        ownLevel = control.level
        lowestLevel = lowest
        self.control = control
        self.format = format
        self.sink = sink
    }

    /// One field of every event.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes an event, unless it repeats one that was written too often lately.
    public func log(event: LogEvent) {
        let now = Timestamp.now
        guard let control, event.level >= .warning else { return sink.write(line: line(for: event, at: now)) }
        let key = LogRepeats.Key(file: event.file, line: event.line, message: event.message.description)
        let (isAdmitted, ended) = control.admit(key, at: now.seconds)
        for end in ended { sink.write(line: line(ofRepeats: end, at: now)) }
        if isAdmitted { sink.write(line: line(for: event, at: now)) }
    }

    func line(for event: LogEvent, at time: Timestamp) -> [UInt8] {
        var fields = metadata
        if let provided = metadataProvider?.get() {
            fields.merge(provided) { _, new in new }
        }
        if let own = event.metadata {
            fields.merge(own) { _, new in new }
        }
        if let error = event.error, fields["error"] == nil {
            fields["error"] = .string(String(describing: error))
        }
        let message = event.message.description
        switch format {
        case .json:
            return json(
                message, level: event.level, source: (event.function, event.file, event.line), fields: fields, at: time)
        case .text: return text(message, level: event.level, fields: fields, at: time)
        }
    }

    /// The line that says how often an event was not written.
    private func line(ofRepeats end: LogRepeats.Ended, at time: Timestamp) -> [UInt8] {
        let fields: Logger.Metadata = [
            "message": "\(end.key.message)", "repeated": .stringConvertible(end.suppressed),
            "seconds": .stringConvertible(LogRepeats.window),
        ]
        let message = "a message was repeated"
        switch format {
        case .json:
            return json(message, level: .warning, source: ("", end.key.file, end.key.line), fields: fields, at: time)
        case .text: return text(message, level: .warning, fields: fields, at: time)
        }
    }

    private func json(
        _ message: String, level: Logger.Level, source: (function: String, file: String, line: UInt),
        fields: Logger.Metadata, at time: Timestamp
    ) -> [UInt8] {
        var json = JSONLine()
        json.begin()
        json.field("time", text: time.description)
        json.field("level", text: Self.name(of: level))
        json.name("source")
        json.begin()
        json.field("function", text: source.function)
        json.field("file", text: source.file)
        json.field("line", raw: String(source.line))
        json.end()
        json.field("msg", text: message)
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            json.name(Self.reserved.contains(name) ? name + "_" : name)
            json.value(value)
        }
        json.end()
        json.bytes.append(0x0a)
        return json.bytes
    }

    private func text(_ message: String, level: Logger.Level, fields: Logger.Metadata, at time: Timestamp) -> [UInt8] {
        var line = TextLine()
        // Milliseconds are enough for a person.
        line.append(raw: String(time.description.dropLast(7)) + "Z ")
        let name = Self.name(of: level)
        line.append(raw: name + String(repeating: " ", count: 6 - name.count))
        line.append(message: message)
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) { line.append(name, value) }
        line.append(raw: "\n")
        return line.bytes
    }

    static func name(of level: Logger.Level) -> String {
        switch level {
        case .trace: "TRACE"
        case .debug: "DEBUG"
        case .info, .notice: "INFO"
        case .warning: "WARN"
        case .error, .critical: "ERROR"
        }
    }
}
