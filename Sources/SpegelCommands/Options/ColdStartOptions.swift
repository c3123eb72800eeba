import ArgumentParser
import MirrorServer
import PeerRouting

/// How content is fetched that no node holds yet.
struct ColdStartOptions: ParsableArguments {
    @Option(
        help: "Whether nodes that fetch the same new content share one copy of the upstream's: on or off.",
        transform: ColdStartOptions.isOn)
    var coldStart = true

    @Option(
        help: "How many nodes fetch one new content from the upstream at a time.",
        transform: ScalarOption.integer(1...64))
    var coldStartCopies = 1

    @Option(
        help: "How many nodes stream new content from one node.", transform: ScalarOption.integer(1...64))
    var coldStartFanout = 4

    @Option(
        help: "How long a request for new content waits without a byte until it is left to the upstream; 100ms to 30s.",
        transform: ColdStartOptions.wait)
    var coldStartWait: Duration = .seconds(10)

    /// Nil when it is off.
    var configuration: ColdStartConfiguration? { coldStart ? ColdStartConfiguration(wait: coldStartWait) : nil }

    /// Nil when it is off.
    var limits: ClaimLimits? { coldStart ? ClaimLimits(copies: coldStartCopies, fanOut: coldStartFanout) : nil }

    @Sendable private static func isOn(_ text: String) throws -> Bool {
        switch text {
        case "on": return true
        case "off": return false
        default: throw OptionError("on or off")
        }
    }

    @Sendable private static func wait(_ text: String) throws -> Duration {
        guard let duration = DurationOption.parse(text), (.milliseconds(100) ... .seconds(30)).contains(duration) else {
            throw OptionError("a duration from 100ms to 30s, such as 5s")
        }
        return duration
    }
}
