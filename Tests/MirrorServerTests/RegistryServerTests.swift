import ContentStore
import Foundation
import HTTPTestKit
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import OCIDistribution
import Synchronization
import Testing

@testable import MirrorServer

@Suite struct RegistryServerTests {
    @Test func servesAnImage() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                for path in [fixture.tagPath, fixture.manifestPath] {
                    let response = try await client.request(path)
                    #expect(response.status == 200)
                    #expect(response.body == fixture.manifest)
                    #expect(response["content-type"] == "application/vnd.oci.image.manifest.v1+json")
                    #expect(response["docker-content-digest"] == fixture.manifestDigest.description)
                    #expect(response["oci-namespace"] == "docker.io")
                    #expect(response["accept-ranges"] == nil)
                    #expect(response["date"]?.hasSuffix("GMT") == true)
                }
                let layer = try await client.request(fixture.layerPath)
                #expect(layer.status == 200)
                #expect(layer.body == fixture.layer)
                #expect(layer["content-type"] == "application/octet-stream")
                #expect(layer["docker-content-digest"] == fixture.layerDigest.description)
                #expect(layer["accept-ranges"] == "bytes")
                #expect(layer["content-length"] == "1000")
            }
        }
    }

    /// Artifacts carry manifests as layers, and registry back-ups all of them: asked for as a blob, content is its bytes.
    @Test func aManifestIsABlobToo() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let path = "/v2/\(Fixture.repository)/blobs/\(fixture.manifestDigest)?ns=docker.io"
                let whole = try await client.request(path)
                #expect(whole.status == 200)
                #expect(whole.body == fixture.manifest)
                #expect(whole["content-type"] == "application/octet-stream")
                #expect(whole["accept-ranges"] == "bytes")
                // A layer is no manifest, though.
                let layer = try await client.request("/v2/a/manifests/\(fixture.layerDigest)?ns=docker.io")
                #expect(layer.status == 404)
            }
        }
    }

    @Test func listsTags() async throws {
        let fixture = try await Fixture()
        let target = Descriptor(
            mediaType: .imageManifest, digest: fixture.manifestDigest, size: Int64(fixture.manifest.readableBytes))
        for name in ["docker.io/library/demo:2.0", "docker.io/library/demo:latest", "ghcr.io/library/demo:other"] {
            try await fixture.store.tag(target, as: Reference(parsing: name))
        }
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let all = try await client.request("/v2/library/demo/tags/list?ns=docker.io")
                #expect(all.status == 200)
                #expect(all.text == #"{"name":"library/demo","tags":["1.0","2.0","latest"]}"#)
                #expect(all["link"] == nil)
                let first = try await client.request("/v2/library/demo/tags/list?ns=docker.io&n=2")
                #expect(first.text == #"{"name":"library/demo","tags":["1.0","2.0"]}"#)
                let link = try #require(first["link"])
                #expect(link.hasSuffix(#">; rel="next""#))
                let next = try await client.request(String(link.dropFirst().prefix { $0 != ">" }))
                #expect(next.text == #"{"name":"library/demo","tags":["latest"]}"#)
                let none = try await client.request("/v2/library/none/tags/list?ns=docker.io")
                #expect(none.status == 404)
                #expect(none.text.contains("NAME_UNKNOWN"))
                #expect(try await client.request("/v2/library/demo/tags/list").status == 400)
            }
        }
    }

    /// A tag that a peer has answered for is listed like the store's own, in the same pages.
    @Test func listsTagsOfPeers() async throws {
        let fixture = try await Fixture()
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: ["secret"])
        try await withServer(store: fixture.store, missHandler: Miss(), configure: { $0.filter = filter }) { _, port in
            try await RawClient.with(port: port) { client async throws in
                for target in [
                    "/v2/library/demo/manifests/0.9?ns=docker.io", "/v2/library/demo/manifests/1.5?ns=docker.io",
                    "/v2/library/demo/manifests/7.0?ns=quay.io", "/v2/library/other/manifests/8.0?ns=docker.io",
                ] {
                    #expect(try await client.request(target, method: "HEAD").status == 200)
                }
                let all = try await client.request("/v2/library/demo/tags/list?ns=docker.io")
                #expect(all.text == #"{"name":"library/demo","tags":["0.9","1.0","1.5"]}"#)
                let page = try await client.request("/v2/library/demo/tags/list?ns=docker.io&n=1&last=0.9")
                #expect(page.text == #"{"name":"library/demo","tags":["1.0"]}"#)
                #expect(page["link"] != nil)
                let other = try await client.request("/v2/library/other/tags/list?ns=docker.io")
                #expect(other.text == #"{"name":"library/other","tags":["8.0"]}"#)
            }
        }
    }

    @Test func tagsOfPeersAreBoundedAndExpire() throws {
        func tag(_ number: Int) throws -> Reference { try Reference(parsing: "docker.io/a/b:\(number)") }
        let start = ContinuousClock.now
        var tags = PeerTags()
        for number in 0...PeerTags.limit {
            tags.record(try tag(number), isThere: true, now: start + .milliseconds(number))
        }
        #expect(tags.count == PeerTags.limit)
        let known = tags.tags(of: "a/b", registry: "docker.io", now: start + .seconds(10))
        #expect(!known.contains("0") && known.contains("1") && known.contains("\(PeerTags.limit)"))
        tags.record(try tag(1), isThere: false, now: start + .seconds(10))
        #expect(!tags.tags(of: "a/b", registry: "docker.io", now: start + .seconds(10)).contains("1"))
        #expect(tags.tags(of: "a/b", registry: "docker.io", now: start + .seconds(10) + PeerTags.lifetime).isEmpty)
    }

    @Test func headAnswersLikeGet() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let missing = "/v2/a/blobs/sha256:\(String(repeating: "0", count: 64))"
                for path in [
                    fixture.tagPath, fixture.manifestPath, fixture.layerPath, missing, "/v2/", "/v2", "/livez",
                    "/nothing",
                ] {
                    var get = try await client.request(path)
                    var head = try await client.request(path, method: "HEAD")
                    get.fields["date"] = nil
                    head.fields["date"] = nil
                    #expect(head.status == get.status, "\(path)")
                    #expect(head.fields == get.fields, "\(path)")
                }
            }
        }
    }

    @Test func basePathAndHealth() async throws {
        let fixture = try await Fixture()
        let ready = Atomic<Bool>(false)
        try await withServer(store: fixture.store, isReady: { ready.load(ordering: .relaxed) }) { _, port in
            try await RawClient.with(port: port) { client async throws in
                for path in ["/v2", "/v2/", "/v2/?ns=docker.io", "/livez", "/livez?x"] {
                    #expect(try await client.request(path).status == 200, "\(path)")
                }
                #expect(try await client.request("/v2/").text == "{}")
                #expect(try await client.request("/readyz").status == 500)
                ready.store(true, ordering: .relaxed)
                #expect(try await client.request("/readyz").status == 200)
                #expect(try await client.request("/readyz", method: "HEAD").status == 200)
                #expect(try await client.request("/readyz", method: "POST").status == 405)
            }
        }
    }

    // MARK: Errors

    static let zeros = "sha256:" + String(repeating: "0", count: 64)

    /// Method, path, fields, then status and code of the answer.
    static let bad: [(String, String, String, Int, String?)] = [
        ("GET", "/v2/library/demo/manifests/none?ns=docker.io", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/demo/manifests/\(zeros)?ns=docker.io", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/demo/blobs/\(zeros)?ns=docker.io", "", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/library/demo/manifests/1.0", "", 400, "NAME_INVALID"),
        ("GET", "/", "", 404, nil),
        ("GET", "/v1/", "", 404, nil),
        ("GET", "/v2x", "", 404, nil),
        ("GET", "/v2/_catalog", "", 404, nil),
        ("GET", "/v2/library/demo/tags/list", "", 400, "NAME_INVALID"),
        ("GET", "/v2/library/demo/referrers/\(zeros)", "", 404, nil),
        ("GET", "/livez/", "", 404, nil),
        ("GET", "//v2/", "", 404, nil),
        ("GET", "/../v2/", "", 404, nil),
        ("GET", "/v2/../../etc/passwd", "", 404, nil),
        ("GET", "/v2/library/../demo/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/%2e%2e/demo/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/library%2fdemo/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/library//demo/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/a%00b/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/Library/demo/manifests/1.0?ns=docker.io", "", 400, "NAME_INVALID"),
        ("GET", "/v2/library/demo/manifests/.1?ns=docker.io", "", 400, "TAG_INVALID"),
        ("GET", "/v2/library/demo/manifests/sha256:12?ns=docker.io", "", 400, "DIGEST_INVALID"),
        ("GET", "/v2/library/demo/blobs/latest?ns=docker.io", "", 400, "DIGEST_INVALID"),
        ("GET", "/v2/library/demo/blobs/md5:\(String(repeating: "0", count: 32))", "", 400, "DIGEST_INVALID"),
        ("POST", "/v2/library/demo/blobs/uploads/", "Content-Length: 0\r\n", 405, "UNSUPPORTED"),
        ("PUT", "/v2/library/demo/manifests/1.0?ns=docker.io", "Content-Length: 2\r\n\r\n{}", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/library/demo/manifests/1.0?ns=docker.io", "", 405, "UNSUPPORTED"),
        ("OPTIONS", "*", "", 405, "UNSUPPORTED"),
        ("BREW", "/v2/", "", 405, "UNSUPPORTED"),
    ]

    @Test func badRequestsGetTheRightStatusAndCode() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            // All on one connection, which has to stay usable.
            try await RawClient.with(port: port) { client async throws in
                for (method, path, fields, status, code) in Self.bad {
                    let end = fields.contains("\r\n\r\n") ? "" : "\r\n"
                    try await client.send("\(method) \(path) HTTP/1.1\r\nHost: test\r\n\(fields)\(end)")
                    let response = try await client.response()
                    #expect(response.status == status, "\(method) \(path)")
                    #expect(response["content-type"] == "application/json")
                    let body = try JSONDecoder().decode(ErrorBody.self, from: Data(response.body.readableBytesView))
                    if let code { #expect(body.errors.map(\.code) == [code], "\(method) \(path)") }
                    #expect(body.errors.first?.message.isEmpty == false)
                    if status == 405 { #expect(response["allow"] == "GET, HEAD") }
                }
                #expect(try await client.request(fixture.tagPath).status == 200)
            }
        }
    }

    private struct ErrorBody: Decodable {
        struct Entry: Decodable {
            var code: String
            var message: String
        }
        var errors: [Entry]
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
        ("GET /\(String(repeating: "a", count: 9000)) HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \(String(repeating: "a", count: 40000))\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: a\r\n\(String(repeating: "A: b\r\n", count: 200))\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{0}\u{1}", 400),
    ])
    func whatIsNotHTTPIsAnsweredAndClosed(text: String, status: Int) async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                try await client.send(text)
                let response = try await client.response()
                #expect(response.status == status)
                #expect(response["connection"] == "close")
                #expect(response.text.hasPrefix(#"{"errors":[{"code":""#))
                #expect(await client.remainder().readableBytes == 0)
            }
        }
    }

    @Test func requestsWithoutNamespaceUseTheDefaultRegistry() async throws {
        let fixture = try await Fixture()
        try await withServer(
            store: fixture.store, configure: { $0.defaultRegistry = "docker.io" }
        ) { _, port in
            try await RawClient.with(port: port) { client async throws in
                for path in ["/v2/library/demo/manifests/1.0", "/v2/docker.io/library/demo/manifests/1.0"] {
                    let response = try await client.request(path)
                    #expect(response.status == 200, "\(path)")
                    #expect(response["oci-namespace"] == "docker.io")
                }
                #expect(try await client.request("/v2/quay.io/library/demo/manifests/1.0").status == 404)
            }
        }
    }

    @Test func filtersHideContent() async throws {
        let fixture = try await Fixture()
        let filter = try ReferenceFilter(mirroredRegistries: ["https://docker.io"], patterns: ["/private/"])
        try await withServer(store: fixture.store, configure: { $0.filter = filter }) { _, port in
            try await RawClient.with(port: port) { client async throws in
                #expect(try await client.request(fixture.tagPath).status == 200)
                let digest = fixture.layerDigest
                for path in [
                    "/v2/library/demo/blobs/\(digest)?ns=quay.io", "/v2/library/demo/blobs/\(digest)",
                    "/v2/private/demo/blobs/\(digest)?ns=docker.io",
                ] {
                    let response = try await client.request(path)
                    #expect(response.status == 404, "\(path)")
                    #expect(response.text.contains("BLOB_UNKNOWN"))
                }
            }
        }
    }

    @Test func credentialsAreRequired() async throws {
        let fixture = try await Fixture()
        let credentials = BasicCredentials(username: "user", password: "pass:wörd")
        try await withServer(store: fixture.store, configure: { $0.credentials = credentials }) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let expected = "Basic " + Data("user:pass:wörd".utf8).base64EncodedString()
                #expect(credentials.authorization == expected)
                for wrong in [
                    "", "Authorization: \r\n", "Authorization: Basic\r\n", "Authorization: Basic dXNlcjo=\r\n",
                    "Authorization: \(expected)x\r\n", "Authorization: Bearer \(expected.dropFirst(6))\r\n",
                    "Authorization: \(expected.dropFirst(6))\r\n",
                ] {
                    for path in [fixture.tagPath, "/v2/", "/nothing"] {
                        let response = try await client.request(path, fields: wrong)
                        #expect(response.status == 401, "\(path) \(wrong)")
                        #expect(response["www-authenticate"]?.hasPrefix("Basic realm=") == true)
                        #expect(response.text.contains("UNAUTHORIZED"))
                    }
                }
                let right = "Authorization: \(expected)\r\n"
                #expect(try await client.request(fixture.tagPath, fields: right).status == 200)
                #expect(try await client.request("/v2/", fields: right.replacing("Basic", with: "basic")).status == 200)
                #expect(try await client.request("/livez").status == 200)
                #expect(try await client.request("/readyz").status == 200)
            }
        }
    }

    // MARK: Ranges

    static let ranges: [(String, Int, Range<Int>)] = [
        ("bytes=0-0", 206, 0..<1), ("bytes=0-", 206, 0..<1000), ("bytes=10-19", 206, 10..<20),
        ("bytes=990-5000", 206, 990..<1000), ("bytes=-10", 206, 990..<1000), ("bytes=-5000", 206, 0..<1000),
        ("bytes=999-", 206, 999..<1000), ("BYTES=1-2", 206, 1..<3), ("items=1-2", 200, 0..<1000),
        ("bytes=1000-", 416, 0..<0), ("bytes=5000-6000", 416, 0..<0), ("bytes=-0", 416, 0..<0),
        ("bytes=99999999999999999999-", 416, 0..<0),
        ("bytes=2-1", 400, 0..<0), ("bytes=", 400, 0..<0), ("bytes=-", 400, 0..<0), ("bytes=a-b", 400, 0..<0),
        ("bytes=0-1,4-5", 400, 0..<0), ("0-1", 400, 0..<0), ("bytes=1--2", 400, 0..<0),
    ]

    @Test func rangesOfBlobs() async throws {
        let fixture = try await Fixture()
        let files = try FileStore(size: 1000)
        for (store, path, whole) in [
            (fixture.store as any ContentStore, fixture.layerPath, Array(fixture.layer.readableBytesView)),
            (files as any ContentStore, files.blobPath, FileStore.bytes(0..<1000)),
        ] {
            try await withServer(store: store) { _, port in
                try await RawClient.with(port: port) { client async throws in
                    for (value, status, range) in Self.ranges {
                        let response = try await client.request(path, fields: "Range: \(value)\r\n")
                        #expect(response.status == status, "\(value)")
                        switch status {
                        case 200: #expect(Array(response.body.readableBytesView) == whole)
                        case 206:
                            #expect(Array(response.body.readableBytesView) == Array(whole[range]), "\(value)")
                            let expected = "bytes \(range.lowerBound)-\(range.upperBound - 1)/1000"
                            #expect(response["content-range"] == expected)
                        case 416: #expect(response["content-range"] == "bytes */1000")
                        default: #expect(response.text.contains("RANGE_INVALID"))
                        }
                    }
                    let two = try await client.request(path, fields: "Range: bytes=0-1\r\nRange: bytes=2-3\r\n")
                    #expect(two.status == 400)
                    let head = try await client.request(path, method: "HEAD", fields: "Range: bytes=0-1\r\n")
                    #expect(head.status == 200)
                    #expect(head["content-length"] == "1000")
                }
            }
        }
    }

    @Test func conditionsOnTheDigest() async throws {
        let fixture = try await Fixture()
        try await withServer(store: fixture.store) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let tag = "\"\(fixture.layerDigest)\""
                for condition in [tag, "W/\(tag)", "\"x\", \(tag)", "*"] {
                    let response = try await client.request(
                        fixture.layerPath, fields: "If-None-Match: \(condition)\r\n")
                    #expect(response.status == 304, "\(condition)")
                    #expect(response["etag"] == tag)
                }
                #expect(try await client.request(fixture.layerPath, fields: "If-None-Match: \"x\"\r\n").status == 200)
                let range = "Range: bytes=0-1\r\n"
                let same = try await client.request(fixture.layerPath, fields: "\(range)If-Range: \(tag)\r\n")
                #expect(same.status == 206)
                let other = try await client.request(fixture.layerPath, fields: "\(range)If-Range: \"x\"\r\n")
                #expect(other.status == 200)
                // None on manifests.
                let manifest = try await client.request(fixture.manifestPath, fields: range)
                #expect(manifest.status == 200)
                #expect(manifest.body == fixture.manifest)
            }
        }
    }

    // MARK: Bodies

    @Test(arguments: [FileStore.Mode.immediate, .asynchronous]) func largeFilesAreSentWhole(mode: FileStore.Mode)
        async throws
    {
        let size = 5 * 1024 * 1024 + 13
        let files = try FileStore(size: size, mode: mode)
        var limits = HTTPLimits()
        limits.fileRegionBytes = 256 * 1024
        try await withServer(store: files, limits: limits) { _, port in
            try await RawClient.with(port: port) { client async throws in
                for _ in 0..<2 {
                    let response = try await client.request(files.blobPath)
                    #expect(response.status == 200)
                    #expect(Digest.hash(of: response.body.readableBytesView) == files.digest)
                }
                let part = try await client.request(files.blobPath, fields: "Range: bytes=100000-4000000\r\n")
                #expect(part.status == 206)
                #expect(Array(part.body.readableBytesView) == FileStore.bytes(100_000..<4_000_001))
                let absent = try await client.request("/v2/a/blobs/\(Self.zeros)")
                #expect(absent.status == 404)
            }
        }
    }

    @Test func streamsAreRelayedAndFailedOnesAreNotCompleted() async throws {
        for (pieces, complete) in [
            ([3, 4, 3], true), ([10], true), ([3, 4], false), ([3, 4, 4], false), ([], false),
        ] {
            let store = StreamStore(size: 10, pieces: pieces)
            try await withServer(store: store) { _, port in
                try await RawClient.with(port: port) { client async throws in
                    try await client.send("GET \(store.path) HTTP/1.1\r\nHost: a\r\n\r\n")
                    if complete {
                        #expect(try await client.response().body.readableBytes == 10)
                        #expect(try await client.request("/v2/").status == 200)
                    } else {
                        // Without any byte of the content there is a status that says so.
                        let head = try await client.head()
                        #expect(head.status == (pieces.isEmpty ? 503 : 200))
                        guard !pieces.isEmpty else { return }
                        #expect(head.fields["content-length"] == "10")
                        #expect(await client.remainder().readableBytes < 10)
                    }
                }
            }
        }
    }

    @Test func failingStoreIsTreatedAsEmpty() async throws {
        let files = try FileStore(size: 10, mode: .failing)
        try await withServer(store: files) { _, port in
            try await RawClient.with(port: port) { client async throws in
                #expect(try await client.request(files.blobPath).status == 404)
            }
        }
    }

    @Test func storeThatDoesNotAnswerTimesOut() async throws {
        let files = try FileStore(size: 10, mode: .stalling)
        var limits = HTTPLimits()
        limits.responseTimeout = .milliseconds(50)
        try await withServer(store: files, limits: limits) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let response = try await client.request(files.blobPath)
                #expect(response.status == 504)
                #expect(response.text.contains("UNAVAILABLE"))
            }
        }
    }

    @Test func uploadsAreBounded() async throws {
        let files = try FileStore(size: 24 * 1024 * 1024)
        try await withServer(store: files, configure: { $0.concurrentUploads = 1 }) { _, port in
            try await RawClient.with(port: port, receiveBuffer: 4096) { slow in
                try await slow.send("GET \(files.blobPath) HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(try await slow.head().status == 200)
                try await RawClient.with(port: port) { client async throws in
                    let response = try await client.request(files.blobPath)
                    #expect(response.status == 429)
                    #expect(response["retry-after"] == "1")
                    #expect(response.text.contains("TOOMANYREQUESTS"))
                    #expect(try await client.request(files.blobPath, method: "HEAD").status == 200)
                }
            }
            // An upload slot is free again once the slow client has disconnected.
            let limit = ContinuousClock.now + .seconds(60)
            while ContinuousClock.now < limit {
                let status = try await RawClient.with(port: port) { client async throws in
                    try await client.request(files.blobPath, fields: "Range: bytes=0-9\r\n").status
                }
                if status == 206 { return }
                #expect(status == 429)
                try await Task.sleep(for: .milliseconds(10))
            }
            Issue.record("the upload was never counted out")
        }
    }

    // MARK: Misses

    private final class Miss: MissHandler {
        let seen = Mutex<[MissRequest]>([])
        func handleMiss(_ request: MissRequest, response: any ResponseWriter) {
            response.eventLoop.preconditionInEventLoop()
            seen.withLock { $0.append(request) }
            Task {
                response.eventLoop.execute { response.writeHead(ResponseHead(.ok, contentLength: 1_000_000)) }
                for _ in 0..<100 { try await response.writeAndWait(ByteBuffer(repeating: 7, count: 10_000)) }
                response.eventLoop.execute { response.finish() }
            }
        }
    }

    @Test func missesGoToTheHandlerUnlessMirrored() async throws {
        let fixture = try await Fixture()
        let miss = Miss()
        let filter = try ReferenceFilter(mirroredRegistries: ["https://docker.io"], patterns: [])
        try await withServer(
            store: fixture.store, missHandler: miss, configure: { $0.filter = filter }
        ) { _, port in
            try await RawClient.with(port: port) { client async throws in
                let blob = "/v2/a/blobs/\(Self.zeros)?ns=docker.io"
                let response = try await client.request(blob, fields: "Range: bytes=5-\r\n")
                #expect(response.status == 200)
                #expect(response.body == ByteBuffer(repeating: 7, count: 1_000_000))
                #expect(try await client.request("/v2/a/manifests/none?ns=docker.io", method: "HEAD").status == 200)
                #expect(try await client.request(blob, fields: "X-Spegel-Mirrored: true\r\n").status == 404)
                #expect(try await client.request(fixture.layerPath).body == fixture.layer)
                #expect(try await client.request("/v2/a/blobs/\(Self.zeros)?ns=quay.io").status == 404)
                let seen = miss.seen.withLock { $0 }
                #expect(seen.map(\.distribution.lookupKey) == [Self.zeros, "docker.io/a:none"])
                #expect(seen.map(\.isHead) == [false, true])
                #expect(seen.map(\.range) == [.from(5), nil])
                #expect(seen.first?.remoteAddress?.ipAddress == "127.0.0.1")
            }
        }
    }

    /// Random bytes over real sockets: the server answers or closes, and goes on serving others.
    @Test func randomBytesDoNotStopTheServer() async throws {
        let fixture = try await Fixture()
        var limits = HTTPLimits()
        limits.headTimeout = .milliseconds(100)
        limits.idleTimeout = .milliseconds(100)
        try await withServer(store: fixture.store, limits: limits) { server, port in
            var generator = SeededGenerator(seed: 42)
            for round in 0..<150 {
                let bytes = RequestSamples.random(using: &generator)
                let cut = Int.random(in: 0...bytes.count, using: &generator)
                let halfCloses = Bool.random(using: &generator)
                try await RawClient.with(port: port) { client async throws in
                    // The server may have closed before all was sent.
                    try? await client.send(Array(bytes[..<cut]))
                    try? await client.send(Array(bytes[cut...]))
                    if halfCloses { client.endSending() }
                    let rest = await client.remainder()
                    #expect(rest.readableBytes == 0 || String(buffer: rest).hasPrefix("HTTP/1.1 "), "round \(round)")
                }
            }
            // A connection may have been idle for too long before its request gets there.
            let limit = ContinuousClock.now + .seconds(60)
            var status: Int?
            while status == nil, ContinuousClock.now < limit {
                status = try? await RawClient.with(port: port) { client async throws in
                    try await client.request(fixture.tagPath).status
                }
                if status == nil { try await Task.sleep(for: .milliseconds(10)) }
            }
            #expect(status == 200)
        }
    }
}

/// A store whose one blob comes as a stream in pieces of given sizes.
private struct StreamStore: ContentStore {
    let size: Int64
    let pieces: [Int]
    let digest = Digest.hash(of: Array("stream".utf8))
    var path: String { "/v2/a/blobs/\(digest)" }

    func resolve(_ reference: Reference) async throws -> Descriptor? { nil }
    func info(_ digest: Digest) async throws -> ContentInfo? { nil }
    func open(_ digest: Digest) async throws -> OpenContent? {
        let pieces = self.pieces
        let stream = ContentStream(size: size) { _ in
            AsyncThrowingStream<ByteBuffer, any Error> { continuation in
                for piece in pieces { continuation.yield(ByteBuffer(repeating: 1, count: piece)) }
                continuation.finish()
            }
        }
        return OpenContent(
            info: ContentInfo(digest: digest, size: size, mediaType: .octetStream), body: .stream(stream))
    }
    func images() async throws -> [StoredImage] { [] }
    func contents(of image: StoredImage) async throws -> [ContentInfo] { [] }
    func events() -> ContentEvents { InMemoryContentStore().events() }
}
