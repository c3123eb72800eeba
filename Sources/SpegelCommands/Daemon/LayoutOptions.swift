import ContentStore
import Foundation
import Logging
import OCIDistribution

extension OnDiskContentStore.Options {
    /// How the daemon opens a layout it serves; a missing or empty directory becomes one.
    package static func serving(_ path: String, logger: Logger) -> Self {
        var options = Self()
        options.bareTags = bareTagSource(path)
        options.createsIfMissing = true
        options.logger = logger
        return options
    }

    /// How a layout is opened that content is pulled into.
    package static func receiving(logger: Logger) -> Self {
        var options = Self()
        options.createsIfMissing = true
        options.logger = logger
        return options
    }

    /// Where names belong that are no more than a tag, as most tools write them: to `localhost` and a repository named
    /// like the directory.
    static func bareTagSource(_ path: String) -> ContentSource? {
        let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent.lowercased()
        guard let reference = try? Reference(registry: "localhost", repository: name) else { return nil }
        return ContentSource(reference)
    }
}
