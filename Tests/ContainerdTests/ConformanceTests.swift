import ContainerdTestKit
import ContentStoreConformance
import Foundation
import Testing

@Suite(.timeLimit(.minutes(20))) struct ConformanceTests {
    @Test func everyRequirementWithTheContentPath() async throws {
        try await runAll(contentPath: nil)
    }

    @Test func everyRequirementWithoutTheContentPath() async throws {
        try await runAll(contentPath: "/nonexistent/content")
    }

    /// One containerd for all cases, each in a namespace of its own.
    private func runAll(contentPath: String?) async throws {
        var options = ContainerdDaemon.Options()
        // Content that was put without an image is no garbage, but also gets its label only a moment later.
        options.collectsAtOnce = false
        let daemon = try await ContainerdDaemon.start(options)
        let features = contentPath == nil ? ContainerdBackend.features : ContainerdBackend.featuresWithoutFiles
        let cases = ContentStoreConformance.cases(for: features)
        #expect(cases.count > 10)
        await withTaskGroup(of: Void.self) { group in
            var running = 0
            for requirement in cases {
                if running == 4 { await group.next() } else { running += 1 }
                group.addTask {
                    do {
                        let backend = try await ContainerdBackend(daemon, contentPath: contentPath)
                        defer { withExtendedLifetime(backend) {} }
                        try await requirement.run(backend)
                        try await backend.tearDown()
                    } catch {
                        Issue.record("\(requirement): \(error)")
                    }
                }
            }
        }
        try await daemon.stop(SIGKILL)
    }
}
