import Foundation
import NodeConfiguration

/// Configures or cleans up a directory and ends itself by SIGKILL after a given step: how a crash looks.
///
/// `configuration-writer configure|cleanup DIRECTORY STEP whole|entries`; steps count from 1, 0 for none.
@main
struct ConfigurationWriter {
    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 5, let step = Int(arguments[3]) else { exit(64) }
        var directory = ConfigurationDirectory(path: arguments[2])
        directory.exchangesWhole = arguments[4] == "whole"
        let counter = Counter()
        directory.afterStep = { _ in
            if counter.next() == step { kill(getpid(), SIGKILL) }
        }
        if arguments[1] == "cleanup" {
            _ = try directory.cleanUp()
        } else {
            _ = try directory.configure(
                MirrorConfigurationPlan(
                    registries: [
                        try RegistryURL(parsing: "https://docker.io"), try RegistryURL(parsing: "https://ghcr.io"),
                    ],
                    targets: [try RegistryURL(parsing: "http://127.0.0.1:30020")], prependsExisting: true))
        }
    }

    private final class Counter: @unchecked Sendable {
        private var count = 0

        func next() -> Int {
            count += 1
            return count
        }
    }
}
