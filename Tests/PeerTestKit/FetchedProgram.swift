import Foundation
import Libp2p

/// A program of another implementation, which a script of the project gets when it is missing, and whose path it prints.
package enum FetchedProgram {
    /// The repository's directory.
    package static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Runs the script; keep the task, so that all tests of a run share it.
    package static func path(from script: String) -> Task<String, any Error> {
        Task {
            let process = try await PipedProcess.start([root.appendingPathComponent(script).path])
            let path = await process.lines.next()
            let status = try await process.wait()
            guard status == 0, let path else { throw HostError.badAnswer("\(script) failed with status \(status)") }
            return path
        }
    }
}
