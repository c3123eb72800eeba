import OCIDistribution
import Testing

@Suite struct DistributionRequestTests {
    static let digest = Digest.hash(of: "content".utf8)
    static let wide = Digest.hash(.sha512, of: "content".utf8)

    @Test func parsesTheFormsOfContainerd() throws {
        let manifest = try DistributionRequest(parsing: "/v2/library/nginx/manifests/latest?ns=docker.io")
        #expect(manifest.kind == .manifest(repository: "library/nginx", .tag("latest")))
        #expect(manifest.registry == "docker.io")
        #expect(manifest.lookupKey == "docker.io/library/nginx:latest")
        #expect(manifest.reference?.description == "docker.io/library/nginx:latest")
        let blob = try DistributionRequest(parsing: "/v2/library/nginx/blobs/\(Self.digest)?ns=localhost%3A5000")
        #expect(blob.kind == .blob(repository: "library/nginx", Self.digest))
        #expect(blob.registry == "localhost:5000")
        #expect(blob.lookupKey == Self.digest.description)
        #expect(blob.uri == "/v2/library/nginx/blobs/\(Self.digest)?ns=localhost%3A5000")
        let wide = try DistributionRequest(parsing: "/v2/a/manifests/\(Self.wide)?ns=[::1]:5000")
        #expect(wide.digest == Self.wide && wide.registry == "[::1]:5000")
    }

    @Test(arguments: [
        "/v2", "/v2/", "/v2/?ns=docker.io", "/v2?ns=!", "http://mirror:5000/v2/", "HTTPS://mirror/v2", "/%762/",
    ])
    func parsesTheBase(uri: String) throws {
        let request = try DistributionRequest(parsing: uri)
        #expect(request == DistributionRequest(kind: .base, registry: nil))
        #expect(request.uri == "/v2/" && request.repository == nil && request.lookupKey == nil)
    }

    @Test(arguments: [
        // ns comes first, then the name, then the default.
        ("/v2/ghcr.io/a/b/manifests/v1", "docker.io", "ghcr.io", "a/b"),
        ("/v2/localhost/a/manifests/v1", "docker.io", "localhost", "a"),
        ("/v2/localhost:5000/a/manifests/v1", "docker.io", "localhost:5000", "a"),
        ("/v2/localhost%3A5000/a/manifests/v1", nil, "localhost:5000", "a"),
        ("/v2/[::1]:5000/a/manifests/v1", nil, "[::1]:5000", "a"),
        ("/v2/library/nginx/manifests/v1", "docker.io", "docker.io", "library/nginx"),
        ("/v2/ghcr.io/manifests/v1", "docker.io", "docker.io", "ghcr.io"),
        ("/v2/localhost/manifests/v1", "docker.io", "docker.io", "localhost"),
        ("/v2/ghcr.io/a/manifests/v1?ns=quay.io", "docker.io", "quay.io", "ghcr.io/a"),
        ("/v2/ghcr.io/a/manifests/v1?ns=", "docker.io", "ghcr.io", "a"),
        ("/v2/a/manifests/v1?ns", "docker.io", "docker.io", "a"),
        ("/v2/a/manifests/v1?x=y&ns=quay.io&z", "docker.io", "quay.io", "a"),
        ("/v2/a/manifests/v1?&&NS=x&%6es=quay.io&ns=", "docker.io", "quay.io", "a"),
        ("/v2/manifests/manifests/v1?ns=quay.io", nil, "quay.io", "manifests"),
        ("/v2/blobs/manifests/manifests/v1?ns=quay.io", nil, "quay.io", "blobs/manifests"),
        ("http://mirror:5000/v2/a/manifests/v1?ns=quay.io", nil, "quay.io", "a"),
    ])
    func resolvesTheRegistry(uri: String, standard: String?, registry: String, repository: String) throws {
        let request = try DistributionRequest(parsing: uri, options: .init(defaultRegistry: standard))
        #expect(request.registry == registry)
        #expect(request.kind == .manifest(repository: repository, .tag("v1")))
        #expect(try DistributionRequest(parsing: request.uri) == request)
    }

    @Test func digestsNeedNoRegistry() throws {
        for kind in ["manifests", "blobs"] {
            let request = try DistributionRequest(parsing: "/v2/library/nginx/\(kind)/\(Self.digest)")
            #expect(request.registry == nil && request.digest == Self.digest && request.reference == nil)
            #expect(request.lookupKey == Self.digest.description)
        }
        #expect { try DistributionRequest(parsing: "/v2/library/nginx/manifests/v1") } throws: { error in
            guard let error = error as? DistributionError else { return false }
            return error.code == .nameInvalid && error.httpStatus == 400
                && error.message.contains("ns is required for tags")
        }
    }

    @Test(
        arguments: [
            // Not of this API.
            ("", .unsupported, 404), ("/", .unsupported, 404), ("v2", .unsupported, 404), ("/v1/", .unsupported, 404),
            ("/v22/", .unsupported, 404), ("/v2/_catalog", .unsupported, 404),
            ("/v2/a/tags/list?n=x", .nameInvalid, 400),
            ("/v2/a/tags/lists?ns=x.y", .unsupported, 404),
            ("/v2/a/referrers/\(digest)", .unsupported, 404), ("/v2/a/blobs/uploads/", .unsupported, 404),
            ("/v2/a", .unsupported, 404), ("/v2/manifests/x", .unsupported, 404),
            ("/v2/a/manifests/", .unsupported, 404),
            ("/v2/a/Manifests/x", .unsupported, 404), ("//v2/a/manifests/x", .unsupported, 404),
            ("/../v2/a/manifests/x", .unsupported, 404), ("*", .unsupported, 404), ("http://x", .unsupported, 404),
            ("ftp://x/v2/", .unsupported, 404), ("/V2/", .unsupported, 404), ("/v2/.", .unsupported, 404),
            // Names.
            ("/v2//manifests/x", .nameInvalid, 400), ("/v2/A/manifests/x", .nameInvalid, 400),
            ("/v2/a//b/manifests/x", .nameInvalid, 400), ("/v2/../manifests/x", .nameInvalid, 400),
            ("/v2/a/../b/manifests/x", .nameInvalid, 400), ("/v2/a/%2e%2e/b/manifests/x", .nameInvalid, 400),
            ("/v2/%2e%2e/%2e%2e/etc/manifests/x", .nameInvalid, 400), ("/v2/a%2Fb/manifests/x", .nameInvalid, 400),
            ("/v2/a%2fb/manifests/x", .nameInvalid, 400), ("/v2/a%00/manifests/x", .nameInvalid, 400),
            ("/v2/a\u{0}/manifests/x", .nameInvalid, 400), ("/v2/a%ff%fe/manifests/x", .nameInvalid, 400),
            ("/v2/é/manifests/x", .nameInvalid, 400), ("/v2/a%/manifests/x", .nameInvalid, 400),
            ("/v2/a%4/manifests/x", .nameInvalid, 400), ("/v2/a%zz/manifests/x", .nameInvalid, 400),
            ("/v2/a%252e/manifests/x", .nameInvalid, 400), ("/v2/a b/manifests/x", .nameInvalid, 400),
            ("/v2/a\\b/manifests/x", .nameInvalid, 400), ("/v2/a./manifests/x", .nameInvalid, 400),
            ("/v2/a..b/c/manifests/x", .nameInvalid, 400), ("/v2/a:0/b/manifests/x", .nameInvalid, 400),
            ("/v2/manifests/x%2fmanifests/y", .nameInvalid, 400), ("/v2/[::1/b/manifests/x", .nameInvalid, 400),
            ("/v2/a#b/manifests/x", .nameInvalid, 400),
            // Registries.
            ("/v2/a/manifests/x?ns=a/b", .nameInvalid, 400), ("/v2/a/manifests/x?ns=a%2fb", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=a.b&ns=a.b", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=a.b&n%73=c.d", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=%00", .nameInvalid, 400), ("/v2/a/manifests/x?ns=%zz", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=a+b", .nameInvalid, 400), ("/v2/a/manifests/x?ns=..", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=user@host", .nameInvalid, 400), ("/v2/a/manifests/x?ns=a=b", .nameInvalid, 400),
            ("/v2/a/manifests/x?ns=a.b#c", .nameInvalid, 400), ("/v2/a/manifests/x?ns=a.b?ns=c.d", .nameInvalid, 400),
            // References.
            ("/v2/a/manifests/.x", .tagInvalid, 400), ("/v2/a/manifests/..", .tagInvalid, 400),
            ("/v2/a/manifests/x%00", .tagInvalid, 400), ("/v2/a/manifests/-x", .tagInvalid, 400),
            ("/v2/a/manifests/x@y", .tagInvalid, 400), ("/v2/a/manifests/x:y", .digestInvalid, 400),
            ("/v2/a/manifests/sha256:abc", .digestInvalid, 400), ("/v2/a/manifests/md5:abc", .digestInvalid, 400),
            ("/v2/a/blobs/latest", .digestInvalid, 400), ("/v2/a/blobs/uploads", .digestInvalid, 400),
            ("/v2/a/blobs/\(digest.hex)", .digestInvalid, 400), ("/v2/a/blobs/\(digest)0", .digestInvalid, 400),
            ("/v2/a/blobs/SHA256:\(digest.hex)", .digestInvalid, 400),
            ("/v2/a/blobs/\(digest)%00", .digestInvalid, 400),
        ] as [(String, DistributionErrorCode, Int)])
    func rejects(uri: String, code: DistributionErrorCode, status: Int) {
        #expect {
            try DistributionRequest(parsing: uri, options: .init(defaultRegistry: "docker.io"))
        } throws: { error in
            guard let error = error as? DistributionError else { return false }
            return error.code == code && error.httpStatus == status && error.message != code.defaultMessage
        }
    }

    @Test func limitsLength() throws {
        let name = String(repeating: "a", count: 245)
        #expect(try DistributionRequest(parsing: "/v2/\(name)/manifests/x?ns=docker.io").repository == name)
        #expect { try DistributionRequest(parsing: "/v2/\(name)a/manifests/x?ns=docker.io") } throws: { error in
            (error as? DistributionError)?.code == .nameInvalid
        }
        #expect { try DistributionRequest(parsing: "/v2/" + String(repeating: "a", count: 9000)) } throws: { error in
            (error as? DistributionError)?.httpStatus == 414
        }
        // Messages stay short, whatever the input.
        #expect { try DistributionRequest(parsing: "/v2/" + String(repeating: "/", count: 8000)) } throws: { error in
            (error as? DistributionError).map { $0.jsonBody.count < 500 } ?? false
        }
    }

    @Test func buildsNothingButOneToken() {
        let hostile = DistributionRequest(
            kind: .manifest(repository: "a b\r\n?x=\u{0}é%", .tag("../x?y#z\n")), registry: "h&ns=i\r\n")
        #expect(hostile.uri.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
        #expect(
            hostile.uri.count(where: { $0 == "?" }) == 1 && !hostile.uri.contains("&") && !hostile.uri.contains("#"))
    }

    static func random(_ generator: inout SeededGenerator) -> DistributionRequest {
        let part = { (generator: inout SeededGenerator) in
            generator.pick(["a", "0", "library", "x-y", "a__b", "c.d", "e---f"]) + generator.text("abc0", upTo: 5)
        }
        var repository = part(&generator)
        for _ in 0..<generator.below(3) { repository += "/" + part(&generator) }
        let registry = generator.pick(["docker.io", "localhost:5000", "[::1]:1", "192.0.2.1", "h"])
        let digest = generator.pick([digest, wide])
        switch generator.below(3) {
        case 0: return .init(kind: .blob(repository: repository, digest), registry: registry)
        case 1: return .init(kind: .manifest(repository: repository, .digest(digest)), registry: registry)
        default:
            let tag = "_" + generator.text("aZ0._-", upTo: 10)
            return .init(kind: .manifest(repository: repository, .tag(tag)), registry: registry)
        }
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func builtRequestsParseBack(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let request = Self.random(&generator)
            #expect(try DistributionRequest(parsing: request.uri) == request, "seed \(seed): \(request.uri)")
            // Encoding more than is needed changes nothing.
            let eager = request.uri.utf8.map { byte in
                [0x2F, 0x3F, 0x3D, 0x25].contains(byte) || generator.below(3) > 0
                    ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }
            let isUntouched = request.uri.contains("%")
            if !isUntouched { #expect(try DistributionRequest(parsing: eager.joined()) == request, "seed \(seed)") }
        }
    }

    /// Whatever parses has valid parts and a canonical form that means the same; nothing crashes.
    @Test(arguments: 0..<6 as Range<UInt64>) func mutatedRequestsStayConsistent(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let alphabet = Array("aA0./:?&=%ns[]_-\u{0}\u{FF}2fe".utf8)
        var valid = 0
        for _ in 0..<3000 {
            let uri = generator.mutate(Array(Self.random(&generator).uri.utf8), alphabet: alphabet)
            let options = DistributionRequest.Options(defaultRegistry: generator.pick([nil, "docker.io"]))
            let parsed = uri.withUnsafeBufferPointer { try? DistributionRequest(parsingUTF8: $0, options: options) }
            guard let parsed, parsed.kind != .base else { continue }
            valid += 1
            if let registry = parsed.registry, let repository = parsed.repository {
                #expect(throws: Never.self, "seed \(seed)") {
                    try Reference(registry: registry, repository: repository, tag: parsed.tag, digest: parsed.digest)
                }
                #expect(try DistributionRequest(parsing: parsed.uri) == parsed, "seed \(seed): \(parsed.uri)")
            }
        }
        #expect(valid > 100)
    }

    /// Docker Hub's other names, upper case and HTTPS's own port are one registry, also when it is named twice.
    @Test(arguments: [
        ("/v2/library/a/manifests/1?ns=index.docker.io", "docker.io", "library/a"),
        ("/v2/library/a/manifests/1?ns=registry-1.docker.io", "docker.io", "library/a"),
        ("/v2/library/a/manifests/1?ns=Docker.IO", "docker.io", "library/a"),
        ("/v2/a/b/manifests/1?ns=ghcr.io:443", "ghcr.io", "a/b"),
        ("/v2/a/b/manifests/1?ns=ghcr.io:4430", "ghcr.io:4430", "a/b"),
        ("/v2/GHCR.io/a/b/manifests/1", "ghcr.io", "a/b"),
        ("/v2/docker.io/library/a/manifests/1?ns=docker.io", "docker.io", "library/a"),
        ("/v2/registry-1.docker.io/library/a/manifests/1?ns=docker.io", "docker.io", "library/a"),
        ("/v2/ghcr.io/a/manifests/1?ns=docker.io", "docker.io", "ghcr.io/a"),
    ])
    func registriesHaveOneSpelling(uri: String, registry: String, repository: String) throws {
        let request = try DistributionRequest(parsing: uri)
        #expect(request.registry == registry)
        #expect(request.repository == repository)
    }

    @Test func listsOfTags() throws {
        let first = try DistributionRequest(parsing: "/v2/library/a/tags/list?ns=docker.io")
        #expect(first.kind == .tags(repository: "library/a", TagPage()))
        let next = try DistributionRequest(parsing: "/v2/library/a/tags/list?n=2&last=1.0&ns=docker.io")
        #expect(next.kind == .tags(repository: "library/a", TagPage(count: 2, last: "1.0")))
        #expect(TagPage(count: 1 << 40).count == TagPage.limit)
        #expect(throws: DistributionError.self) { try DistributionRequest(parsing: "/v2/a/tags/list?ns=x.y&n=x") }
    }
}
