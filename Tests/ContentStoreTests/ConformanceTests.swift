import ContentStoreConformance
import Testing

@Suite struct ConformanceTests {
    @Test(arguments: ContentStoreConformance.cases(for: InMemoryBackend().features))
    func inMemory(_ requirement: ConformanceCase) async throws {
        try await requirement.run(InMemoryBackend())
    }

    @Test(arguments: ContentStoreConformance.cases(for: Set(ConformanceFeature.allCases)))
    func onDisk(_ requirement: ConformanceCase) async throws {
        let backend = try await OnDiskBackend()
        try await requirement.run(backend)
        try await backend.tearDown()
    }
}
