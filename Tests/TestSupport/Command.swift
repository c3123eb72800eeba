import Foundation

/// Runs programs to their end.
package enum Command {
    package struct Result: Sendable {
        package var status: ChildProcess.Status
        package var output: String
        package var errors: String
    }

    /// Runs a program and returns how it ended.
    package static func run(
        _ arguments: String..., environment: [String: String] = [:], limit: Duration = .seconds(180)
    ) async throws -> Result {
        try await run(arguments, environment: environment, limit: limit)
    }

    /// Runs a program and returns how it ended.
    package static func run(
        _ arguments: [String], environment: [String: String] = [:], limit: Duration = .seconds(180)
    ) async throws -> Result {
        let child = try await ChildProcess.start(arguments, environment: environment)
        let status = try await child.wait(limit: limit)
        return Result(status: status, output: child.output, errors: child.errors)
    }

    /// Runs a program that must succeed, and returns its output.
    @discardableResult
    package static func check(
        _ arguments: String..., environment: [String: String] = [:], limit: Duration = .seconds(180)
    ) async throws -> String {
        try await check(arguments, environment: environment, limit: limit)
    }

    /// Runs a program that must succeed, and returns its output.
    @discardableResult
    package static func check(
        _ arguments: [String], environment: [String: String] = [:], limit: Duration = .seconds(180)
    ) async throws -> String {
        let result = try await run(arguments, environment: environment, limit: limit)
        guard result.status == .exited(0) else {
            throw HarnessFailure(
                "\(arguments.joined(separator: " ")): \(result.status)\n\(result.output)\n\(result.errors)")
        }
        return result.output
    }
}
