import Logging

/// Writes one JSON object a line: `time`, `level`, `source`, `msg`, then the fields in the order of their names.
public struct JSONLogHandler: LogHandler {
    /// The largest text of one field, in bytes; more is cut off, so that a line cannot grow without bound.
    static let maximumText = 16 * 1024
    /// Names that a field cannot have.
    private static let reserved: Set<String> = ["time", "level", "source", "msg"]

    /// Fields of every event.
    public var metadata: Logger.Metadata = [:]
    /// Events below this level are dropped.
    public var logLevel: Logger.Level
    /// Fields from the task's context.
    public var metadataProvider: Logger.MetadataProvider?
    private let sink: any LogSink

    /// A handler that writes to standard error.
    public init(logLevel: Logger.Level) {
        self.init(logLevel: logLevel, sink: LogQueue.standardError)
    }

    init(logLevel: Logger.Level, sink: any LogSink) {
        self.logLevel = logLevel
        self.sink = sink
    }

    /// One field of every event.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes an event.
    public func log(event: LogEvent) {
        sink.write(line: line(for: event, at: .now))
    }

    func line(for event: LogEvent, at time: Timestamp) -> [UInt8] {
        var json = JSONLine()
        json.begin()
        json.field("time", text: time.description)
        json.field("level", text: Self.name(of: event.level))
        json.name("source")
        json.begin()
        json.field("function", text: event.function)
        json.field("file", text: event.file)
        json.field("line", raw: String(event.line))
        json.end()
        json.field("msg", text: event.message.description)

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
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            json.name(Self.reserved.contains(name) ? name + "_" : name)
            json.value(value)
        }
        json.end()
        json.bytes.append(0x0a)
        return json.bytes
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
