import Foundation

/// Where the project's own things are.
package enum Project {
    /// The package's directory.
    package static let root: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { url.deleteLastPathComponent() }
        return url.path
    }()

    /// Whether `SPEGEL_TEST_FULL=1` asks for tests as large as the project's promises; otherwise they are smaller.
    package static let isFullScale = ProcessInfo.processInfo.environment["SPEGEL_TEST_FULL"] == "1"

    /// The daemon's program, which was built together with the tests and lies beside them; `SPEGEL_TEST_PROGRAM` names
    /// another, such as that of a release build.
    package static func program(_ name: String = "spegel") throws -> String {
        if name == "spegel", let other = ProcessInfo.processInfo.environment["SPEGEL_TEST_PROGRAM"] { return other }
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let path = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
        guard FileManager.default.isExecutableFile(atPath: path) else {
            throw HarnessFailure("no program \(path); the tests need 'swift build' to have built it")
        }
        return path
    }
}
