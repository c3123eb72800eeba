import OCIDistribution
import Testing

@Suite struct ReferenceFilterTests {
    private func allows(_ filter: ReferenceFilter, _ reference: String) throws -> Bool {
        try filter.allows(Reference(parsing: reference))
    }

    @Test func letsEverythingThroughByDefault() throws {
        #expect(ReferenceFilter.all.isUnrestricted)
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: [])
        #expect(filter.isUnrestricted)
        #expect(try allows(filter, "docker.io/library/nginx:latest"))
    }

    @Test func mirrorsOnlyTheRegistriesGiven() throws {
        let filter = try ReferenceFilter(
            mirroredRegistries: ["https://docker.io", "http://localhost:5000/", "GHCR.io", "https://[::1]:80"],
            patterns: [])
        #expect(!filter.isUnrestricted)
        for name in ["docker.io/a", "localhost:5000/a", "ghcr.io/a", "GHCR.IO/a", "[::1]:80/a"] {
            #expect(try allows(filter, name), "\(name)")
        }
        for name in ["quay.io/a", "localhost/a", "localhost:5001/a", "docker.io:443/a", "[::1]/a", "x.docker.io/a"] {
            #expect(try !allows(filter, name), "\(name)")
        }
    }

    @Test(arguments: ["*", "_default", "https://_default", "http://*"]) func wildcardsLiftTheRestriction(
        wildcard: String
    ) throws {
        for list in [[wildcard], ["https://docker.io", wildcard], [wildcard, "https://docker.io"]] {
            let filter = try ReferenceFilter(mirroredRegistries: list, patterns: [])
            #expect(filter.isUnrestricted)
            #expect(try allows(filter, "quay.io/a"))
        }
    }

    @Test(arguments: [
        ("^docker\\.io/", "docker.io/library/nginx:1", true), ("^docker\\.io/", "x.docker.io/library/nginx:1", false),
        (":latest$", "docker.io/a:latest", true), (":latest$", "docker.io/a:latest1", false),
        (":latest$", "docker.io/a", false),
        ("library", "docker.io/library/nginx", true), ("library", "docker.io/a/b", false),
        ("^(quay\\.io|ghcr\\.io)/team-[0-9]+/.*", "ghcr.io/team-42/app:v1", true),
        ("^(quay\\.io|ghcr\\.io)/team-[0-9]+/.*", "ghcr.io/team-x/app:v1", false), ("", "a.b/c", true),
        ("(?i)NGINX", "docker.io/library/nginx", true), ("^[^:]+$", "docker.io/a", true),
        ("^[^:]+$", "docker.io/a:b", false),
    ])
    func patternsAreSearchedFor(pattern: String, reference: String, isFiltered: Bool) throws {
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["never-matches-this", pattern])
        #expect(!filter.isUnrestricted)
        #expect(try allows(filter, reference) == !isFiltered)
    }

    @Test func theCaseOfAHostMakesNoDifference() throws {
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["^docker\\.io/", "^Quay\\.io/"])
        for name in ["docker.io/a", "DOCKER.io/a", "Quay.io/a"] { #expect(try !allows(filter, name), "\(name)") }
        #expect(try allows(filter, "GHCR.io/a"))
    }

    @Test func bothRulesMustAllow() throws {
        let filter = try ReferenceFilter(mirroredRegistries: ["docker.io"], patterns: ["secret"])
        #expect(try allows(filter, "docker.io/a:b"))
        #expect(try !allows(filter, "docker.io/secret:b"))
        #expect(try !allows(filter, "quay.io/a:b"))
        // A digest has no part in it.
        #expect(try allows(filter, "docker.io/a@\(Digest.hash(of: []))"))
    }

    @Test(arguments: ["(", "[a", "*", "a{2,1}"]) func namesInvalidPatterns(pattern: String) {
        #expect { try ReferenceFilter(mirroredRegistries: [], patterns: ["ok", pattern]) } throws: { error in
            guard case ReferenceFilterError.invalidPattern(pattern, _) = error else { return false }
            return "\(error)".contains(pattern)
        }
    }

    @Test(arguments: [
        "", "https://", "ftp://docker.io", "https://docker.io/path", "https://user@docker.io", "https://docker.io?x",
        "a b", "a:0",
        "https://docker.io//", "docker.io#x",
    ])
    func namesInvalidRegistries(registry: String) {
        for list in [[registry], ["*", registry]] {
            #expect { try ReferenceFilter(mirroredRegistries: list, patterns: []) } throws: { error in
                guard case ReferenceFilterError.invalidRegistry(registry, _) = error else { return false }
                return true
            }
        }
    }

    @Test func matchesFromManyTasksAtOnce() async throws {
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["^docker\\.io/.*:[0-9]+$"])
        await withTaskGroup(of: Bool.self) { group in
            for task in 0..<16 {
                group.addTask {
                    (0..<50).allSatisfy { number in
                        !filter.allows(registry: "docker.io", repository: "a", tag: "\(number)")
                            && filter.allows(registry: "docker.io", repository: "a", tag: "v\(task)")
                    }
                }
            }
            for await result in group { #expect(result) }
        }
    }
}
