import Foundation
import HTTPTestKit
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTPServer

@Suite struct ConnectionTests {
    private let get = "GET /a HTTP/1.1\r\nHost: t\r\n\r\n"

    @Test func answersAndKeepsTheConnection() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        for _ in 0..<3 {
            try connection.receive(get)
            let sent = try connection.sent()
            #expect(sent.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(sent.hasSuffix("\r\n\r\n/a"))
            #expect(!sent.contains("Connection:"))
        }
        #expect(connection.isOpen)
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive((0..<100).map { "GET /\($0) HTTP/1.1\r\nHost: t\r\n\r\n" }.joined())
        let bodies = try connection.sent().components(separatedBy: "HTTP/1.1 200 OK\r\n").dropFirst()
            .map { $0.components(separatedBy: "\r\n\r\n").last ?? "" }
        #expect(bodies == (0..<100).map { "/\($0)" })
    }

    /// While a response is awaited neither the next request is begun nor the socket read.
    @Test func pipelinedRequestsWaitForASlowResponse() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { _ in }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get + get + get)
        #expect(responder.exchanges.count == 1)
        #expect(try connection.sent().isEmpty)
        for expected in 1...3 {
            let exchange = try #require(responder.exchanges.last)
            exchange.send(ResponseHead(.ok, contentLength: 0), body: ByteBuffer(string: "x"))
            #expect(statuses(try connection.sent()) == [200])
            #expect(responder.exchanges.count == min(expected + 1, 3))
        }
    }

    @Test func pipelinedRequestsWaitForAClientThatDoesNotRead() throws {
        let responder = ScriptedResponder()
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        connection.channel.isWritable = false
        try connection.receive(get + get)
        #expect(responder.exchanges.isEmpty)
        connection.channel.isWritable = true
        connection.channel.pipeline.fireChannelWritabilityChanged()
        #expect(responder.exchanges.count == 2)
        #expect(statuses(try connection.sent()) == [200, 200])
    }

    @Test func headHasTheHeadOfGet() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive(get)
        let whole = try connection.sent()
        try connection.receive("HEAD /a HTTP/1.1\r\nHost: t\r\n\r\n")
        #expect(try connection.sent() + "/a" == whole)
    }

    @Test(arguments: [
        ("GET /a HTTP/1.0\r\n\r\n", "Connection: close", false),
        ("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive", true),
        ("GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "Connection: close", false),
    ])
    func closesWhenAskedTo(request: String, field: String, stays: Bool) throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive(request)
        #expect(try connection.sent().contains("\r\n\(field)\r\n"))
        #expect(connection.isOpen == stays)
    }

    @Test func smallBodyIsReadAndDropped() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive("GET /a HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n01234")
        #expect(statuses(try connection.sent()) == [200])
        try connection.receive("56789" + get)
        #expect(statuses(try connection.sent()) == [200])
        #expect(connection.isOpen)
    }

    @Test(arguments: [
        "Content-Length: 100000000\r\n", "Transfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\nExpect: 100-continue\r\n",
    ])
    func otherBodiesEndTheConnection(fields: String) throws {
        let responder = ScriptedResponder()
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive("GET /a HTTP/1.1\r\nHost: t\r\n\(fields)\r\n" + get)
        let sent = try connection.sent()
        #expect(statuses(sent) == [200])
        #expect(sent.contains("Connection: close"))
        #expect(!connection.isOpen)
        #expect(responder.exchanges.count == 1)
    }

    @Test func invalidRequestIsRefusedAndClosesTheConnection() throws {
        let responder = ScriptedResponder()
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get + "GET / HTTP/1.1\r\nHost : a\r\n\r\n" + get)
        #expect(statuses(try connection.sent()) == [200, 400])
        #expect(responder.exchanges.count == 1)
        #expect(!connection.isOpen)
    }

    // MARK: Waits

    @Test func slowHeadIsAnswered408() throws {
        var limits = HTTPLimits()
        limits.headTimeout = .seconds(10)
        let connection = try EmbeddedConnection(responder: ScriptedResponder(), limits: limits)
        defer { connection.finish() }
        for byte in "GET /a HT".utf8 {
            try connection.receive([byte])
            connection.advance(.seconds(1))
        }
        #expect(try connection.sent().isEmpty)
        connection.advance(.seconds(3))
        #expect(statuses(try connection.sent()) == [408])
        #expect(!connection.isOpen)
    }

    @Test func idleConnectionIsClosedWithoutAResponse() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive(get)
        _ = try connection.sent()
        connection.advance(.seconds(118))
        #expect(connection.isOpen)
        connection.advance(.seconds(4))
        #expect(!connection.isOpen)
        #expect(try connection.sent().isEmpty)
        #expect(connection.table.count == 0)
        #expect(connection.context.openConnections == 0)
    }

    @Test func bodyThatDoesNotComeEndsTheConnection() throws {
        let connection = try EmbeddedConnection(responder: ScriptedResponder())
        defer { connection.finish() }
        try connection.receive("GET /a HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0")
        connection.advance(.seconds(12))
        #expect(!connection.isOpen)
    }

    @Test func unansweredRequestIsAnswered504() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { _ in }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get)
        let exchange = try #require(responder.exchanges.first)
        let delegate = RecordingDelegate()
        exchange.delegate = delegate
        connection.advance(.seconds(62))
        #expect(statuses(try connection.sent()) == [504])
        #expect(delegate.closed == 1)
        #expect(!exchange.isOpen)
        // A late answer goes nowhere.
        exchange.send(ResponseHead(.ok, contentLength: 0), body: ByteBuffer(string: "late"))
        #expect(try connection.sent().isEmpty)
        #expect(!connection.isOpen)
    }

    @Test func responseThatStopsIsCutOff() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { exchange in
            exchange.writeHead(ResponseHead(.ok, contentLength: 100))
            exchange.write(ByteBuffer(string: "12345"))
            exchange.flush()
        }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get)
        let exchange = try #require(responder.exchanges.first)
        for _ in 0..<5 {
            connection.advance(.seconds(50))
            #expect(connection.isOpen)
            exchange.write(ByteBuffer(string: "x"))
            exchange.flush()
        }
        connection.advance(.seconds(63))
        #expect(!connection.isOpen)
        #expect(!exchange.isOpen)
    }

    // MARK: The response writer

    @Test(arguments: [4, 6]) func bodyOfAnotherLengthIsNeverComplete(announced: Int64) throws {
        let responder = ScriptedResponder()
        responder.onRequest = { exchange in
            exchange.writeHead(ResponseHead(.ok, contentLength: announced))
            exchange.write(ByteBuffer(string: "12345"))
            exchange.finish()
        }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get + get)
        #expect(responder.exchanges.count == 1)
        #expect(!connection.isOpen)
        let body = try connection.sent().components(separatedBy: "\r\n\r\n").dropFirst().joined()
        #expect(body.utf8.count < announced)
    }

    @Test func misuseEndsTheConnectionOnly() throws {
        let misuses: [(HTTPExchange) -> Void] = [
            { $0.write(ByteBuffer(string: "x")) },
            { $0.finish() },
            {
                $0.writeHead(ResponseHead(.ok, contentLength: 1))
                $0.writeHead(ResponseHead(.ok, contentLength: 1))
            },
            { $0.writeHead(ResponseHead(.ok, contentLength: -1)) },
            { $0.abort("because") },
        ]
        for misuse in misuses {
            let responder = ScriptedResponder()
            responder.onRequest = misuse
            let connection = try EmbeddedConnection(responder: responder)
            defer { connection.finish() }
            try connection.receive(get)
            #expect(!connection.isOpen)
        }
    }

    @Test func writerReportsBackPressureAndDisconnection() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { _ in }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get)
        let exchange = try #require(responder.exchanges.first)
        let delegate = RecordingDelegate()
        exchange.delegate = delegate
        exchange.writeHead(ResponseHead(.ok, contentLength: 10))
        connection.channel.isWritable = false
        #expect(!exchange.isWritable)
        let ready = exchange.whenWritable()
        connection.channel.isWritable = true
        connection.channel.pipeline.fireChannelWritabilityChanged()
        #expect(delegate.writable == 1)
        try ready.wait()
        connection.channel.isWritable = false
        let never = exchange.whenWritable()
        connection.channel.close(promise: nil)
        connection.channel.embeddedEventLoop.run()
        #expect(delegate.closed == 1)
        #expect(throws: ResponseClosed.self) { try never.wait() }
        #expect(!exchange.isOpen)
        #expect(throws: ResponseClosed.self) { try exchange.whenWritable().wait() }
    }

    @Test func headerValuesCannotEndTheirField() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { exchange in
            var head = ResponseHead(.ok, contentLength: 0, contentType: "a\r\nEvil: 1")
            head.namespace = "b\nEvil: 2"
            head.fields = [("X\r\nEvil", "c\u{0}d")]
            exchange.send(head, body: ByteBuffer())
        }
        let connection = try EmbeddedConnection(responder: responder)
        defer { connection.finish() }
        try connection.receive(get)
        let lines = try connection.sent().components(separatedBy: "\r\n")
        #expect(lines.filter { $0.hasPrefix("Evil") }.isEmpty)
        #expect(lines.contains("Content-Type: a  Evil: 1"))
    }

    // MARK: Limits and shutdown

    @Test func refusedConnectionIsAnswered503() throws {
        let responder = ScriptedResponder()
        let connection = try EmbeddedConnection(responder: responder, isRefused: true)
        defer { connection.finish() }
        try connection.receive(get)
        let sent = try connection.sent()
        #expect(statuses(sent) == [503])
        #expect(sent.contains("Retry-After: 1"))
        #expect(responder.exchanges.isEmpty)
        #expect(!connection.isOpen)
    }

    @Test func drainingEndsIdleConnectionsAtOnceAndOthersAfterTheirResponse() throws {
        let responder = ScriptedResponder()
        responder.onRequest = { _ in }
        let idle = try EmbeddedConnection(responder: responder)
        defer { idle.finish() }
        let done = idle.table.drain(gracePeriod: .seconds(30))
        #expect(!idle.isOpen)
        idle.channel.embeddedEventLoop.run()
        try done.wait()

        let busy = try EmbeddedConnection(responder: responder)
        defer { busy.finish() }
        try busy.receive(get + get)
        _ = busy.table.drain(gracePeriod: .seconds(30))
        #expect(busy.isOpen)
        busy.advance(.seconds(20))
        try #require(responder.exchanges.last).send(ResponseHead(.ok, contentLength: 0), body: ByteBuffer(string: "x"))
        let sent = try busy.sent()
        #expect(statuses(sent) == [200])
        #expect(sent.contains("Connection: close"))
        #expect(!busy.isOpen)

        let stuck = try EmbeddedConnection(responder: responder)
        defer { stuck.finish() }
        try stuck.receive(get)
        _ = stuck.table.drain(gracePeriod: .seconds(30))
        stuck.advance(.seconds(29))
        #expect(stuck.isOpen)
        stuck.advance(.seconds(2))
        #expect(!stuck.isOpen)
    }

    @Test func observerReceivesEveryRequestOnce() throws {
        let observer = RecordingObserver()
        let responder = ScriptedResponder()
        let connection = try EmbeddedConnection(responder: responder, observer: observer)
        defer { connection.finish() }
        try connection.receive(get + "HEAD /b HTTP/1.1\r\nHost: t\r\n\r\n" + "nonsense\r\n\r\n")
        let summaries = observer.summaries
        #expect(summaries.map(\.handler) == ["test", "test", "invalid"])
        #expect(summaries.map { $0.status?.code } == [200, 200, 400])
        #expect(summaries.map(\.bodyBytes).prefix(2) == [2, 0])
        #expect(summaries.allSatisfy { $0.isComplete })
        #expect(observer.began == 2)

        responder.onRequest = { _ in }
        let broken = try EmbeddedConnection(responder: responder, observer: observer)
        try broken.receive(get)
        broken.finish()
        #expect(observer.summaries.count == 4)
        #expect(observer.summaries.last?.isComplete == false)
        #expect(observer.summaries.last?.status == nil)
    }

    /// Whatever arrives, in whatever pieces: no crash, every response has a known status, and in the end the connection
    /// is closed and nothing of it is left.
    @Test func randomBytesAreAnsweredOrEndTheConnection() throws {
        var generator = SeededGenerator(seed: 0xc0ffee)
        for round in 0..<1500 {
            let connection = try EmbeddedConnection(responder: ScriptedResponder())
            let bytes = RequestSamples.random(using: &generator)
            var position = 0
            while position < bytes.count, connection.isOpen {
                let count = min(Int.random(in: 1...200, using: &generator), bytes.count - position)
                try connection.receive(Array(bytes[position..<(position + count)]))
                position += count
            }
            let known: Set<Int> = [200, 400, 408, 414, 417, 431, 501, 505]
            let sent = try connection.sent()
            #expect(statuses(sent).allSatisfy(known.contains), "round \(round): \(sent)")
            connection.advance(.seconds(15))
            connection.advance(.seconds(130))
            #expect(!connection.isOpen, "round \(round)")
            #expect(connection.context.openConnections == 0)
            connection.finish()
        }
    }
}

final class RecordingDelegate: ResponseWriterDelegate, @unchecked Sendable {
    private(set) var writable = 0
    private(set) var closed = 0
    func responseWriterIsWritable(_ writer: any ResponseWriter) { writable += 1 }
    func responseWriterDidClose(_ writer: any ResponseWriter) { closed += 1 }
}
