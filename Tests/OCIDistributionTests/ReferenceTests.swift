import OCIDistribution
import Testing

@Suite struct ReferenceTests {
    static let digest = Digest.hash(of: [])

    @Test(arguments: [
        ("docker.io/library/nginx:latest", "docker.io", "library/nginx", "latest", false),
        ("localhost/a", "localhost", "a", nil, false),
        ("localhost:5000/a/b/c:v1.0_x-Y", "localhost:5000", "a/b/c", "v1.0_x-Y", false),
        ("[::1]:5000/a:1", "[::1]:5000", "a", "1", false),
        ("[2001:db8::1]/a", "[2001:db8::1]", "a", nil, false),
        ("192.0.2.1/a@\(digest)", "192.0.2.1", "a", nil, true),
        ("ghcr.io/a/b:tag@\(digest)", "ghcr.io", "a/b", "tag", true),
        ("a:1/b", "a:1", "b", nil, false),
    ])
    func parses(text: String, registry: String, repository: String, tag: String?, hasDigest: Bool) throws {
        let reference = try Reference(parsing: text)
        #expect(reference.registry == registry)
        #expect(reference.repository == repository)
        #expect(reference.tag == tag)
        #expect(reference.digest == (hasDigest ? Self.digest : nil))
        #expect(reference.description == text)
        #expect(Reference(text) == reference)
        #expect(try Reference(parsingWithDockerDefaults: text) == reference)
        #expect(
            try Reference(registry: registry, repository: repository, tag: tag, digest: reference.digest) == reference)
        #expect(reference.taggedName == tag.map { "\(registry)/\(repository):\($0)" })
    }

    @Test(arguments: [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("nginx@\(digest)", "docker.io/library/nginx@\(digest)"),
        ("me/app", "docker.io/me/app"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/nginx:a", "docker.io/library/nginx:a"),
        ("ghcr.io/nginx", "ghcr.io/nginx"),
        ("localhost/nginx", "localhost/nginx"),
        ("HOST.example/nginx", "HOST.example/nginx"),
    ])
    func takesDockerDefaults(text: String, full: String) throws {
        let reference = try Reference(parsingWithDockerDefaults: text)
        #expect(reference.description == full)
        #expect(try Reference(parsing: full) == reference)
    }

    @Test func addsTheDefaultTagOnlyWhereThereIsNone() throws {
        #expect(try Reference(parsing: "a.b/c").withDefaultTag.description == "a.b/c:latest")
        #expect(try Reference(parsing: "a.b/c:d").withDefaultTag.description == "a.b/c:d")
        #expect(try Reference(parsing: "a.b/c@\(Self.digest)").withDefaultTag.tag == nil)
    }

    @Test(arguments: [
        ("", "empty"), ("nginx", "must begin with a registry"), ("library/nginx:latest", "must begin with a registry"),
        ("docker.io/", "empty"), ("docker.io", "must begin with a registry"),
        ("docker.io:80", "must begin with a registry"),
        ("docker.io//a", "empty component"), ("docker.io/a/", "empty component"), ("docker.io/A", "lower case"),
        ("docker.io/a b", "may hold only"), ("docker.io/../a", "must begin with"),
        ("docker.io/a/..", "must begin with"),
        ("docker.io/a:", "tag is empty"), ("docker.io/a:b:c", "tag may hold only"),
        ("docker.io/a:-b", "tag must begin"),
        ("docker.io/a@", "invalid digest"), ("docker.io/a@sha256:abc", "needs 64"),
        ("docker.io/a@md5:abc", "unsupported"),
        ("docker.io/a@\(digest)@\(digest)", "invalid digest"), ("a..b/c", "not a host name"), ("[::1/a", "bracket"),
        ("a:0/b", "port"), ("a:99999/b", "port"), ("docker.io/a\u{0}", "may hold only"),
        ("/a", "must begin with a registry"),
        ("https://docker.io/a", "port"), ("docker.io/\(String(repeating: "a", count: 246))", "together"),
    ])
    func rejects(text: String, reason: String) {
        #expect { try Reference(parsing: text) } throws: { error in
            "\(error)".contains(reason) && (text.isEmpty || "\(error)".contains("invalid reference"))
        }
        #expect(Reference(text) == nil)
    }

    @Test func limitsLength() throws {
        let longest = "docker.io/" + String(repeating: "a", count: 245)
        #expect(try Reference(parsing: longest).name == longest)
        #expect(throws: ReferenceError.self) { try Reference(parsing: String(repeating: "a", count: 100_000)) }
        #expect(throws: ReferenceError.self) {
            try Reference(parsingWithDockerDefaults: String(repeating: "a", count: 250))
        }
    }

    @Test func refusesImageIDs() {
        #expect(throws: ReferenceError.self) { try Reference(parsingWithDockerDefaults: Self.digest.hex) }
    }

    @Test func checksParts() {
        #expect(throws: ReferenceError.self) { try Reference(registry: "a/b", repository: "c") }
        #expect(throws: ReferenceError.self) { try Reference(registry: "a.b", repository: "c:d") }
        #expect(throws: ReferenceError.self) { try Reference(registry: "a.b", repository: "c", tag: "d@e") }
    }

    /// What parses prints as it was, and parses again; nothing crashes.
    @Test(arguments: 0..<4 as Range<UInt64>) func mutatedReferencesStayConsistent(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let seeds = ["docker.io/library/nginx:latest", "[::1]:5000/a:1", "localhost/a@\(Self.digest)", "nginx"]
        var valid = 0
        for _ in 0..<3000 {
            let bytes = generator.mutate(Array(generator.pick(seeds).utf8), alphabet: Array("aA0.:/@-_[]%\u{0}".utf8))
            let text = String(decoding: bytes, as: UTF8.self)
            if let reference = Reference(text) {
                valid += 1
                #expect(reference.description == text, "seed \(seed)")
            }
            if let reference = try? Reference(parsingWithDockerDefaults: text) {
                #expect(Reference(reference.description) == reference, "seed \(seed): \(text)")
            }
        }
        #expect(valid > 100)
    }
}
