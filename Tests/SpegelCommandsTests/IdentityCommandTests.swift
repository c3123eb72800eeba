import ArgumentParser
import Foundation
import Testing

@testable import SpegelCommands

@Suite struct IdentityCommandTests {
    private func command(_ arguments: String...) throws -> DHTCommand.IDCommand {
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(["dht", "id"] + arguments, environment: [:])
        return try #require(SpegelCommand.parseAsRoot(normalized.arguments) as? DHTCommand.IDCommand)
    }

    @Test func makesAnIdentityOnceAndOnlyWhenTold() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("spegel-id-\(UUID())").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let key = "\(directory)/private.key"
        await #expect(throws: CommandFailure.self) { try await command("--data-dir", directory).run() }
        #expect(!FileManager.default.fileExists(atPath: key))
        try await command("--data-dir", directory, "--create").run()
        let first = try Data(contentsOf: URL(fileURLWithPath: key))
        try await command("--data-dir", directory, "--create").run()
        #expect(try Data(contentsOf: URL(fileURLWithPath: key)) == first)
    }

    @Test func needsADirectory() {
        #expect(throws: (any Error).self) { try command("--create") }
    }
}
