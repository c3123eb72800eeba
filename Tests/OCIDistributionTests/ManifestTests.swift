import Foundation
import OCIDistribution
import Testing

@Suite struct ManifestTests {
    static let a = Digest.hash(of: "a".utf8)
    static let b = Digest.hash(.sha512, of: "b".utf8)

    static let ociIndex = """
        {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
          {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\(a)","size":7,
           "platform":{"architecture":"arm","os":"linux","variant":"v7","os.version":"1","os.features":["x"]},
           "annotations":{"k":"v"},"new":{"deep":[1,2]}},
          {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\(b)","size":9}],
         "annotations":{"org.opencontainers.image.ref.name":"latest"},"unknown":true}
        """
    static let ociManifest = """
        {"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\(a)","size":2},
         "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"\(b)","size":3,
                    "urls":["https://a"],"data":"e30="}]}
        """
    static let dockerList = """
        {"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[
          {"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":1,"digest":"\(a)",
           "platform":{"architecture":"amd64","os":"windows","os.version":"10.0"}}]}
        """
    static let dockerManifest = """
        {"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
         "config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"\(a)"},
         "layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":2,"digest":"\(b)"},
                   {"size":0,"digest":"\(a)"}]}
        """
    static let artifact = """
        {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x",
         "config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"\(a)","size":2},"layers":[],
         "subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\(b)","size":5}}
        """

    @Test func decodesAnIndex() throws {
        let manifest = try Manifest.decode(from: Self.ociIndex.utf8, mediaType: .imageIndex)
        guard case .index(let index) = manifest else { throw UnexpectedKind() }
        #expect(manifest.mediaType == .imageIndex)
        #expect(manifest.references.map(\.digest) == [Self.a, Self.b])
        #expect(manifest.references.map(\.size) == [7, 9])
        #expect(index.annotations == ["org.opencontainers.image.ref.name": "latest"])
        #expect(index.manifests[0].annotations == ["k": "v"])
        let platform = try #require(index.manifests[0].platform)
        #expect(platform.description == "linux/arm/v7" && platform.osVersion == "1" && platform.osFeatures == ["x"])
    }

    @Test func decodesAManifest() throws {
        let manifest = try Manifest.decode(from: Array(Self.ociManifest.utf8))
        guard case .image(let image) = manifest else { throw UnexpectedKind() }
        #expect(manifest.mediaType == .imageManifest && image.mediaType == nil && manifest.subject == nil)
        // Config first, as that is what a reader needs first.
        #expect(manifest.references.map(\.digest) == [Self.a, Self.b])
        #expect(image.layers[0].urls == ["https://a"] && image.layers[0].data == "e30=")
        #expect(try Manifest.decode(from: Data(Self.ociManifest.utf8)) == manifest)
    }

    @Test func decodesDockerSchema2() throws {
        let list = try Manifest.decode(from: Self.dockerList.utf8, mediaType: .dockerManifestList)
        #expect(list.mediaType == .dockerManifestList && list.references.first?.platform?.osVersion == "10.0")
        let manifest = try Manifest.decode(from: Self.dockerManifest.utf8)
        #expect(manifest.mediaType == .dockerManifest)
        #expect(manifest.references.map(\.mediaType) == [.dockerConfig, .dockerLayerGzip, .octetStream])
        // The two families get mixed up in descriptors; the kind is what matters.
        #expect(try Manifest.decode(from: Self.dockerManifest.utf8, mediaType: .imageManifest) == manifest)
    }

    @Test func decodesAnArtifact() throws {
        let manifest = try Manifest.decode(from: Self.artifact.utf8)
        guard case .image(let image) = manifest else { throw UnexpectedKind() }
        #expect(image.artifactType == MediaType("application/x") && image.config.mediaType == .empty)
        #expect(manifest.subject?.digest == Self.b && manifest.references.map(\.digest) == [Self.a])
    }

    @Test func toleratesOddOptionalFields() throws {
        let odd = """
            {"schemaVersion":"two","mediaType":null,"artifactType":7,"annotations":null,"subject":"x",
             "config":{"digest":"\(Self.a)","size":2,"mediaType":null,"annotations":[],"urls":"x","platform":[]},
             "layers":[{"digest":"\(Self.a)","size":2.0,"mediaType":7,"annotations":{"a":"b","c":null,"d":{"e":1}},
                        "urls":[1],"platform":{"os":null,"architecture":7},"artifactType":[],"data":{}}]}
            """
        let manifest = try Manifest.decode(from: odd.utf8)
        #expect(manifest.annotations == nil && manifest.subject == nil)
        let layer = try #require(manifest.references.last)
        #expect(layer.mediaType == .octetStream && layer.annotations == ["a": "b"] && layer.urls == nil)
        #expect(layer.platform == Platform(architecture: "", os: "") && layer.size == 2)
    }

    /// Go writes a list that was never made as null.
    @Test func nullIsAnEmptyList() throws {
        let index = try Manifest.decode(from: #"{"schemaVersion":2,"manifests":null}"#.utf8)
        #expect(index.mediaType == .imageIndex && index.references.isEmpty)
        for type in ["", #""mediaType":"application/vnd.oci.image.manifest.v1+json","#] {
            let text = #"{\#(type)"config":{"digest":"\#(Self.a)","size":2},"layers":null}"#
            let manifest = try Manifest.decode(from: text.utf8)
            #expect(manifest.mediaType == .imageManifest && manifest.references.map(\.digest) == [Self.a])
        }
    }

    @Test(arguments: [
        (#"{"manifests":[{"size":1}]}"#, "manifests.0: digest is missing"),
        (#"{"manifests":[{"digest":"\#(a)"}]}"#, "manifests.0: size is missing"),
        (#"{"manifests":[{"digest":"\#(a)","size":-1}]}"#, "negative"),
        (#"{"manifests":[{"digest":"\#(a)","size":1e30}]}"#, "size"),
        (#"{"manifests":[{"digest":"\#(a)","size":"1"}]}"#, "size"),
        (#"{"manifests":[{"digest":"\#(a)","size":1.5}]}"#, "size"),
        (#"{"manifests":[{"digest":"sha256:abc","size":1}]}"#, "needs 64"),
        (#"{"manifests":[{"digest":"md5:abc","size":1}]}"#, "unsupported digest algorithm"),
        (#"{"manifests":[null]}"#, "manifests"), (#"{"manifests":["x"]}"#, "manifests"),
        (#"{"config":{"digest":"\#(a)","size":1},"layers":[{}]}"#, "layers.0: digest is missing"),
        (#"{"config":{},"layers":[]}"#, "config: digest is missing"),
        (#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#, "manifests"),
        (#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#, "config is missing"),
        ("{}", "not a manifest"), ("[]", ""), ("", ""), ("{", ""), ("\u{0}", ""),
        (#"{"manifests":[],"layers":[]}"#, "ambiguous"),
        (#"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#, "ambiguous"),
        (#"{"mediaType":"text/plain","manifests":[]}"#, "mediaType is \"text/plain\""),
        (#"{"fsLayers":[],"signatures":[]}"#, "schema 1"),
        (#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}"#, "schema 1"),
    ])
    func saysWhatIsWrong(json: String, reason: String) {
        #expect { try Manifest.decode(from: json.utf8) } throws: { error in
            error is ManifestError && (reason.isEmpty || "\(error)".contains(reason))
        }
    }

    @Test func refusesTheOtherKind() {
        #expect(throws: ManifestError.mediaTypeMismatch(expected: .imageManifest, actual: .imageIndex)) {
            try Manifest.decode(from: Self.ociIndex.utf8, mediaType: .imageManifest)
        }
        #expect(throws: ManifestError.mediaTypeMismatch(expected: .dockerManifestList, actual: .imageManifest)) {
            try Manifest.decode(from: Self.ociManifest.utf8, mediaType: .dockerManifestList)
        }
        #expect(throws: ManifestError.unsupported(.dockerSchema1)) {
            try Manifest.decode(from: Self.ociManifest.utf8, mediaType: .dockerSchema1)
        }
    }

    @Test func limitsSizeAndCount() throws {
        let large = Self.ociIndex + String(repeating: " ", count: Manifest.maximumSize)
        #expect(throws: ManifestError.tooLarge(size: large.utf8.count, limit: Manifest.maximumSize)) {
            try Manifest.decode(from: large.utf8)
        }
        let one = #"{"digest":"\#(Self.a)","size":1}"#
        func index(_ count: Int) -> String {
            #"{"manifests":["# + Array(repeating: one, count: count).joined(separator: ",") + "]}"
        }
        #expect(try Manifest.decode(from: index(10_000).utf8).references.count == 10_000)
        #expect { try Manifest.decode(from: index(10_001).utf8) } throws: { "\($0)".contains("more than 10000") }
    }

    @Test(arguments: [ociIndex, ociManifest, dockerList, dockerManifest, artifact]) func encodesBack(json: String)
        throws
    {
        let manifest = try Manifest.decode(from: json.utf8)
        let encoded =
            switch manifest {
            case .index(let index): try JSONEncoder().encode(index)
            case .image(let image): try JSONEncoder().encode(image)
            }
        #expect(try Manifest.decode(from: encoded) == manifest)
        let object = try #require(try JSONSerialization.jsonObject(with: encoded) as? [String: Any])
        // What is absent is left out, not null.
        #expect(!object.values.contains { $0 is NSNull })
    }

    /// Cut at any byte it is an error, never a crash nor half a manifest.
    @Test(arguments: [ociIndex, dockerManifest]) func truncatedDocumentsAreErrors(json: String) {
        let bytes = Array(json.utf8)
        for end in 0..<bytes.count {
            #expect(throws: ManifestError.self) { try Manifest.decode(from: bytes[..<end]) }
        }
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func mutatedDocumentsNeverCrash(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let documents = [
            Self.ociIndex, Self.ociManifest, Self.dockerList, Self.dockerManifest, Self.artifact,
            ImageConfigTests.docker,
        ]
        let alphabet = Array("{}[]\":,0-9eE.\\utrnl\u{0}\u{FF}".utf8)
        var valid = 0
        for _ in 0..<200 {
            let bytes = generator.mutate(Array(generator.pick(documents).utf8), alphabet: alphabet)
            let detected = MediaType.detect(manifestJSON: bytes)
            _ = try? ImageConfig.decode(from: bytes)
            if let manifest = try? Manifest.decode(from: bytes) {
                valid += 1
                #expect(manifest.references.allSatisfy { $0.size >= 0 }, "seed \(seed)")
                #expect(detected == manifest.mediaType, "seed \(seed)")
            }
        }
        #expect(valid > 10)
    }

    struct UnexpectedKind: Error {}
}

@Suite struct ImageConfigTests {
    static let docker = """
        {"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["A=b"],"Cmd":["sh"],
         "Entrypoint":null,"Labels":{"x":"y","z":1},"ExposedPorts":{"80/tcp":{}},"WorkingDir":"/w","User":"me"},
         "rootfs":{"type":"layers","diff_ids":["\(ManifestTests.a)","\(ManifestTests.b)"]},"history":[{"created_by":"x"}]}
        """

    @Test func decodes() throws {
        let config = try ImageConfig.decode(from: Self.docker.utf8)
        #expect(config.rootfs.diffIDs == [ManifestTests.a, ManifestTests.b])
        #expect(config.platform.description == "linux/amd64")
        #expect(
            config.config?.environment == ["A=b"] && config.config?.entrypoint == nil
                && config.config?.command == ["sh"])
        #expect(
            config.config?.labels == ["x": "y"] && config.config?.workingDirectory == "/w"
                && config.config?.user == "me")
        #expect(try ImageConfig.decode(from: JSONEncoder().encode(config)) == config)
    }

    @Test(arguments: [
        #"{"rootfs":{}}"#, #"{"rootfs":{"diff_ids":null},"config":7,"os":[]}"#, #"{"rootfs":{"type":7,"diff_ids":[]}}"#,
    ])
    func toleratesMissingFields(json: String) throws {
        let config = try ImageConfig.decode(from: json.utf8)
        #expect(config.rootfs.diffIDs.isEmpty && config.os.isEmpty)
    }

    @Test(arguments: [
        "{}", "[]", #"{"rootfs":null}"#, #"{"rootfs":{"diff_ids":"x"}}"#, #"{"rootfs":{"diff_ids":["x"]}}"#,
        #"{"rootfs":{"diff_ids":[null]}}"#,
    ])
    func rejects(json: String) {
        #expect(throws: ManifestError.self) { try ImageConfig.decode(from: json.utf8) }
    }
}
