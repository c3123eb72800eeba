import HTTPTestKit
import NIOCore
import NIOHTTP1
import Testing

@testable import HTTPServer

@Suite struct RequestParserTests {
    /// The result of parsing some bytes: the requests found, then the rejection, if any.
    private struct Outcome: Equatable {
        var requests: [String] = []
        var rejection: RequestRejection?
        var rest = 0
    }

    private func parse(_ bytes: [UInt8], limits: HTTPLimits = HTTPLimits(), piece: Int = .max) -> Outcome {
        var parser = RequestParser(limits: limits)
        var buffer = ByteBuffer()
        var outcome = Outcome()
        var fed = 0
        do throws(RequestRejection) {
            while fed < bytes.count {
                let count = min(piece, bytes.count - fed)
                buffer.writeBytes(bytes[fed..<(fed + count)])
                fed += count
                while let head = try parser.next(from: &buffer) {
                    let fields = head.fields.count
                    outcome.requests.append(
                        "\(head.method) \(head.target) \(head.version) \(fields) \(head.keepAlive) \(head.body)")
                }
            }
            outcome.rest = buffer.readableBytes
        } catch {
            outcome.rejection = error
        }
        return outcome
    }

    private func head(_ text: String) throws -> RequestHead {
        var parser = RequestParser(limits: HTTPLimits())
        var buffer = ByteBuffer(string: text)
        return try #require(try parser.next(from: &buffer))
    }

    @Test func readsRequestLineAndFields() throws {
        let head = try head(
            "GET /v2/a/manifests/b?ns=docker.io HTTP/1.1\r\nHost: example\r\nACCEPT: a\r\nRange:  bytes=0-1 \t\r\naccept: b\r\nEmpty:\r\n\r\n"
        )
        #expect(head.method == .GET)
        #expect(head.target == "/v2/a/manifests/b?ns=docker.io")
        #expect(head.path == "/v2/a/manifests/b")
        #expect(head.query == "ns=docker.io")
        #expect(head.version == .http1_1)
        #expect(head.keepAlive)
        #expect(head.body == .none)
        #expect(head.fields.count == 5)
        #expect(head.fields["range"] == "bytes=0-1")
        #expect(head.fields["Accept"] == "a")
        #expect(head.fields.values(of: "accept") == ["a", "b"])
        #expect(head.fields["empty"] == "")
        #expect(head.fields["missing"] == nil)
        #expect(!head.fields.contains("hos"))
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo,  CLOSE\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ])
    func decidesAboutKeepingTheConnection(text: String, expected: Bool) throws {
        #expect(try head(text).keepAlive == expected)
    }

    @Test(arguments: [
        ("http://host", "/"), ("http://host:80/a?b", "/a?b"), ("HTTP://host/a", "/a"), ("https://h?q", "/?q"),
        ("*", "*"), ("/%2e%2e//a", "/%2e%2e//a"),
    ])
    func acceptsAllFormsOfTargets(target: String, expected: String) throws {
        #expect(try head("GET \(target) HTTP/1.1\r\nHost: a\r\n\r\n").target == expected)
    }

    static let bad: [(String, HTTPResponseStatus)] = [
        ("\u{16}\u{3}\u{1}\u{2}", .badRequest),
        (" GET / HTTP/1.1\r\n\r\n", .badRequest),
        ("GET\r\n\r\n", .badRequest),
        ("GET /\r\n\r\n", .badRequest),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", .badRequest),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/11.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", .httpVersionNotSupported),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .httpVersionNotSupported),
        ("GET /a\u{0}b HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET /a\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET /ü HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("CONNECT host:443 HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        (String(repeating: "G", count: 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\u{0}\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", .badRequest),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", .notImplemented),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", .notImplemented),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", .badRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: everything\r\n\r\n", .expectationFailed),
        (String(repeating: "\r\n", count: 5) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
    ]

    @Test(arguments: bad.indices) func refuses(index: Int) {
        let (text, status) = Self.bad[index]
        for piece in [Int.max, 1, 3] {
            let outcome = parse(Array(text.utf8), piece: piece)
            #expect(outcome.rejection?.status == status, "\(text.debugDescription) in pieces of \(piece)")
            #expect(outcome.requests.isEmpty)
        }
    }

    @Test func boundsTheRequestLine() {
        var limits = HTTPLimits()
        limits.requestLineBytes = 100
        let longest = "GET /" + String(repeating: "a", count: 100 - 14) + " HTTP/1.1"
        #expect(longest.utf8.count == 100)
        for piece in [Int.max, 1] {
            #expect(
                parse(Array("\(longest)\r\nHost: a\r\n\r\n".utf8), limits: limits, piece: piece).requests.count == 1)
            let over = parse(Array("\(longest)1\r\nHost: a\r\n\r\n".utf8), limits: limits, piece: piece)
            #expect(over.rejection?.status == .uriTooLong)
        }
        // Without any line end in sight, too.
        let endless = parse(Array(repeating: 0x41, count: 200), limits: limits, piece: 7)
        #expect(endless.rejection?.status == .uriTooLong)
    }

    @Test func boundsFieldsInBytesAndNumber() {
        var limits = HTTPLimits()
        limits.headBytes = 1000
        limits.requestLineBytes = 100
        limits.headFields = 5
        let start = "GET / HTTP/1.1\r\nHost: a\r\n"
        let four = String(repeating: "A: b\r\n", count: 4)
        for piece in [Int.max, 1, 17] {
            #expect(parse(Array("\(start)\(four)\r\n".utf8), limits: limits, piece: piece).requests.count == 1)
            let many = parse(Array("\(start)\(four)A: b\r\n\r\n".utf8), limits: limits, piece: piece)
            #expect(many.rejection?.status == .requestHeaderFieldsTooLarge)
            let long = parse(
                Array("\(start)A: \(String(repeating: "b", count: 1000))\r\n\r\n".utf8), limits: limits, piece: piece)
            #expect(long.rejection?.status == .requestHeaderFieldsTooLarge)
            let endless = parse(
                Array("\(start)A: \(String(repeating: "b", count: 1000))".utf8), limits: limits, piece: piece)
            #expect(endless.rejection?.status == .requestHeaderFieldsTooLarge)
        }
    }

    /// However the bytes are cut into pieces, the same requests are found and the same ones refused; nothing crashes,
    /// and what is found never has control characters in it.
    @Test func randomBytesReadTheSameInAnyPieces() {
        var generator = SeededGenerator(seed: 0x5e61)
        for round in 0..<3000 {
            let bytes = RequestSamples.random(using: &generator)
            let whole = parse(bytes)
            let piece = Int.random(in: 1...9, using: &generator)
            let pieces = parse(bytes, piece: piece)
            #expect(
                whole == pieces,
                "round \(round), pieces of \(piece): \(String(decoding: bytes, as: UTF8.self).debugDescription)")
            for request in whole.requests { #expect(request.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f }) }
        }
    }
}
