import HTTPServer
import Logging
import Synchronization

/// Keeps what a server reports of its requests.
package final class RecordingObserver: RequestObserver {
    private let state = Mutex<(began: Int, summaries: [RequestSummary])>((0, []))

    package init() {}

    package var began: Int { state.withLock { $0.began } }
    package var summaries: [RequestSummary] { state.withLock { $0.summaries } }
    package func requestBegan(handler: String) { state.withLock { $0.began += 1 } }
    package func requestEnded(_ summary: RequestSummary) { state.withLock { $0.summaries.append(summary) } }
}

/// A logger whose messages go nowhere but are made.
package let quiet: Logger = {
    var logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    logger.logLevel = .debug
    return logger
}()
