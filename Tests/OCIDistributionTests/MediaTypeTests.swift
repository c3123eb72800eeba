import OCIDistribution
import Testing

@Suite struct MediaTypeTests {
    @Test(arguments: [
        ("application/json", "application/json"), ("Application/JSON; charset=utf-8", "application/json"),
        (" application/vnd.oci.image.index.v1+json ;x", "application/vnd.oci.image.index.v1+json"), ("", ""), (";", ""),
    ])
    func readsContentTypes(header: String, type: String) {
        #expect(MediaType(contentType: header).rawValue == type)
    }

    @Test func tellsKindsApart() {
        let indexes: [MediaType] = [.imageIndex, .dockerManifestList]
        let manifests: [MediaType] = [.imageManifest, .dockerManifest]
        let layers: [(MediaType, MediaType.Compression)] = [
            (.layer, .none), (.layerGzip, .gzip), (.layerZstd, .zstd), (.dockerLayer, .none), (.dockerLayerGzip, .gzip),
            (.nondistributableLayer, .none), (.nondistributableLayerGzip, .gzip), (.nondistributableLayerZstd, .zstd),
            (.dockerForeignLayerGzip, .gzip), (.dockerLayerZstd, .zstd),
        ]
        for type in indexes { #expect(type.isIndex && type.isManifest && !type.isImageManifest && !type.isLayer) }
        for type in manifests { #expect(!type.isIndex && type.isManifest && type.isImageManifest && !type.isConfig) }
        for (type, compression) in layers {
            #expect(type.isLayer && type.layerCompression == compression && !type.isManifest)
        }
        #expect(layers.filter { $0.0.isNondistributable }.count == 4)
        for type in [MediaType.imageConfig, .dockerConfig] {
            #expect(type.isConfig && !type.isManifest && !type.isLayer)
        }
        for type in [MediaType.dockerSchema1, .dockerSchema1Signed] {
            #expect(type.isDockerSchema1 && !type.isManifest)
        }
        for type in [MediaType.octetStream, .empty, .json, MediaType("x")] {
            #expect(!type.isManifest && !type.isLayer && !type.isConfig && !type.isDockerSchema1)
        }
    }

    @Test(arguments: [
        // The field decides …
        (#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#, MediaType.imageIndex),
        (#" \#n\#t{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#, .imageManifest),
        (
            #"{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}"#,
            .dockerManifestList
        ),
        (
            #"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[]}"#,
            .dockerManifest
        ),
        (#"{"media\u0054ype":"application\/vnd.oci.image.index.v1+json"}"#, .imageIndex),
        // … else the shape.
        (#"{"manifests":[]}"#, .imageIndex), (#"{"config":{},"layers":[]}"#, .imageManifest),
        (#"{"mediaType":"","manifests":[]}"#, .imageIndex), (#"{"mediaType":null,"manifests":[{}]}"#, .imageIndex),
        (#"{"mediaType":7,"config":{"a":1},"layers":[1]}"#, .imageManifest),
        // Go writes an empty list as null.
        (#"{"manifests":null}"#, .imageIndex), (#"{"config":{},"layers":null}"#, .imageManifest),
        (#"{"fsLayers":[],"schemaVersion":1}"#, .dockerSchema1),
        (#"{"fsLayers":[],"signatures":[]}"#, .dockerSchema1Signed),
    ])
    func detects(json: String, type: MediaType) {
        #expect(MediaType.detect(manifestJSON: json.utf8) == type)
    }

    @Test(arguments: [
        "", "{", "{}", "[]", "null", "\"manifests\"", "x", "\u{1F}\u{8B}", #"{"config":{}}"#, #"{"layers":[]}"#,
        #"{"manifests":{}}"#, #"{"config":[],"layers":{}}"#, #"{"config":null,"layers":[]}"#,
        #"{"config":"x","layers":[]}"#,
        #"{"architecture":"amd64","config":{},"rootfs":{}}"#,
        #"{"mediaType":"application/vnd.oci.image.config.v1+json"}"#,
        #"{"mediaType":"text/plain","manifests":[]}"#, #"{"manifests":[]"#, #"{"manifests":[],}x"#,
        // Readers disagree about these.
        #"{"manifests":[],"layers":[]}"#, #"{"manifests":[],"config":{},"layers":[]}"#,
        #"{"mediaType":"application/vnd.oci.image.index.v1+json","config":{},"layers":[]}"#,
        #"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
        // containerd takes a field that is null for one that is there.
        #"{"manifests":null,"config":{},"layers":[]}"#,
        #"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":null}"#,
    ])
    func detectsNoManifest(text: String) {
        #expect(MediaType.detect(manifestJSON: text.utf8) == nil)
    }

    @Test func neverParsesLargeContent() {
        let start = Array(#"{"manifests":[],"x":""#.utf8)
        let fill = [UInt8](repeating: 0x61, count: Manifest.maximumSize - start.count - 2)
        #expect(MediaType.detect(manifestJSON: start + fill + Array("\"}".utf8)) == .imageIndex)
        #expect(MediaType.detect(manifestJSON: start + fill + Array("a\"}".utf8)) == nil)
    }

    @Test func survivesDeepNesting() {
        for opening in ["[", #"{"a":"#] {
            let text = #"{"manifests":"# + String(repeating: opening, count: 100_000)
            #expect(MediaType.detect(manifestJSON: text.utf8) == nil)
        }
    }
}
