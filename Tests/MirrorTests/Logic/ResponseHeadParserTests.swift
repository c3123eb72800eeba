import NIOCore
import PeerRouting
import Testing

@testable import MirrorServer

@Suite struct ResponseHeadParserTests {
    private func parse(_ text: String) throws -> PeerResponseHead? {
        var parser = ResponseHeadParser()
        var buffer = ByteBuffer(string: text)
        return try parser.next(from: &buffer)
    }

    private static let full = """
        HTTP/1.1 206 Partial Content\r\nDate: x\r\ncontent-LENGTH:  12 \r\nContent-Type: application/json\r\n\
        Content-Range: bytes 0-11/40\r\nDocker-Content-Digest: sha256:ab\r\nX-Empty:\r\n\r\n
        """

    @Test func aHeadIsRead() throws {
        let head = try #require(try parse(Self.full))
        #expect(head.status == 206)
        #expect(head.contentLength == 12)
        #expect(head.contentType == "application/json")
        #expect(head.contentRange == "bytes 0-11/40")
        #expect(head.digest == "sha256:ab")
        #expect(head.keepsConnection)
    }

    @Test func aHeadInPiecesIsTheSame() throws {
        let whole = try parse(Self.full)
        var parser = ResponseHeadParser()
        var buffer = ByteBuffer()
        var head: PeerResponseHead?
        for byte in (Self.full + "body").utf8 {
            buffer.writeInteger(byte)
            if head == nil { head = try parser.next(from: &buffer) }
        }
        #expect(head == whole)
        #expect(String(buffer: buffer) == "body")
    }

    @Test func interimAnswersAreSkipped() throws {
        #expect(try parse("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")?.status == 200)
        #expect(try parse("HTTP/1.1 100 Continue\r\n\r\n") == nil)
        #expect(throws: PeerProtocolError.self) { try parse("HTTP/1.1 101 Switching\r\n\r\n") }
        let many = String(repeating: "HTTP/1.1 100 C\r\n\r\n", count: 9)
        #expect(throws: PeerProtocolError.self) { try parse(many) }
    }

    @Test func whetherTheConnectionIsKept() throws {
        #expect(try parse("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?.keepsConnection == false)
        #expect(try parse("HTTP/1.0 200 OK\r\n\r\n")?.keepsConnection == false)
        #expect(try parse("HTTP/1.0 200 OK\r\nConnection: foo, Keep-Alive\r\n\r\n")?.keepsConnection == true)
        #expect(try parse("HTTP/1.1 200\r\n\r\n")?.keepsConnection == true)
    }

    @Test(arguments: [
        "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 099 No\r\n\r\n", "HTTP/1.1 600 No\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nName : x\r\n\r\n", "HTTP/1.1 200 OK\r\nA: \u{1}\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
    ])
    func whatIsNotHTTPIsRefused(text: String) {
        #expect(throws: PeerProtocolError.self) { try parse(text) }
    }

    @Test func endlessHeadsAreRefused() {
        let long = "HTTP/1.1 200 OK\r\nA: " + String(repeating: "x", count: ResponseHeadParser.headLimit)
        #expect(throws: PeerProtocolError.self) { try parse(long) }
    }

    /// Any bytes lead to a head, an error or a wait; never further than the limit.
    @Test(arguments: 0..<300)
    func mutatedHeadsAreHarmless(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        var bytes = Array(Self.full.utf8)
        for _ in 0..<Int.random(in: 1...8, using: &random) {
            let index = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.remove(at: index)
            default: bytes.insert(bytes[Int.random(in: 0..<bytes.count, using: &random)], at: index)
            }
        }
        var parser = ResponseHeadParser()
        var buffer = ByteBuffer(bytes: bytes)
        do throws(PeerProtocolError) {
            if let head = try parser.next(from: &buffer) {
                #expect((200..<600).contains(head.status))
                #expect(head.contentLength.map { $0 >= 0 } ?? true)
            }
        } catch {
            #expect(!error.reason.isEmpty)
        }
    }
}
