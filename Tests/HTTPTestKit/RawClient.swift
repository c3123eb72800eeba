import NIOCore
import NIOPosix

/// A response as received.
package struct RawResponse: Sendable {
    package var status: Int
    package var fields: [String: String]
    package var body: ByteBuffer

    package var text: String { String(buffer: body) }

    package subscript(name: String) -> String? { fields[name.lowercased()] }
}

/// A connection that sends any bytes and reads responses byte by byte, so that tests see exactly what is sent.
package final class RawClient {
    package struct Closed: Error {}

    /// A response that no client should have to read.
    package struct InvalidResponse: Error {
        let reason: String
        init(_ reason: String) { self.reason = reason }
    }

    private let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    private var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private var received = ByteBuffer()
    package let channel: any Channel

    private init(
        _ channel: any Channel, _ inbound: NIOAsyncChannelInboundStream<ByteBuffer>,
        _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) {
        self.channel = channel
        self.inbound = inbound.makeAsyncIterator()
        self.outbound = outbound
    }

    /// Connects, runs `body`, closes.
    package static func with<Result>(
        port: Int, host: String = "127.0.0.1", from source: String? = nil, receiveBuffer: Int? = nil,
        _ body: (RawClient) async throws -> Result
    ) async throws -> Result {
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
        if let source { bootstrap = bootstrap.bind(to: try SocketAddress(ipAddress: source, port: 0)) }
        if let receiveBuffer {
            bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: receiveBuffer)
        }
        let channel = try await bootstrap.connect(host: host, port: port) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                    wrappingChannelSynchronously: channel,
                    configuration: .init(
                        backPressureStrategy: .init(lowWatermark: 1, highWatermark: 2),
                        isOutboundHalfClosureEnabled: true))
            }
        }
        return try await channel.executeThenClose { inbound, outbound in
            try await body(RawClient(channel.channel, inbound, outbound))
        }
    }

    package func send(_ text: String) async throws { try await outbound.write(ByteBuffer(string: text)) }

    package func send(_ bytes: [UInt8]) async throws { try await outbound.write(ByteBuffer(bytes: bytes)) }

    /// Ends our side of the connection.
    package func endSending() { outbound.finish() }

    /// One request with the fields every request has.
    package func request(_ path: String, method: String = "GET", fields: String = "") async throws -> RawResponse {
        try await send("\(method) \(path) HTTP/1.1\r\nHost: test\r\n\(fields)\r\n")
        return try await response(isHead: method == "HEAD")
    }

    /// Reads one response.
    package func response(isHead: Bool = false) async throws -> RawResponse {
        let head = try await self.head()
        var response = RawResponse(status: head.status, fields: head.fields, body: ByteBuffer())
        guard !isHead, head.status != 304 else { return response }
        guard let length = Int(response["content-length"] ?? "") else { throw InvalidResponse("no Content-Length") }
        response.body = try await body(length)
        return response
    }

    /// Reads the head of a response.
    package func head() async throws -> (status: Int, fields: [String: String]) {
        while true {
            if let end = received.readableBytesView.firstRange(of: Array("\r\n\r\n".utf8)) {
                let length = end.upperBound - received.readerIndex
                let text = received.readString(length: length) ?? ""
                let lines = text.split(separator: "\r\n")
                let status = Int(lines[0].split(separator: " ")[1]) ?? 0
                var fields: [String: String] = [:]
                for line in lines.dropFirst() {
                    let parts = line.split(separator: ":", maxSplits: 1)
                    let name = parts[0].lowercased()
                    guard fields[name] == nil else { throw InvalidResponse("repeated field \(name)") }
                    fields[name] = parts[1].trimmingPrefix(" ").description
                }
                return (status, fields)
            }
            try await receive()
        }
    }

    /// Reads exactly `length` bytes.
    package func body(_ length: Int) async throws -> ByteBuffer {
        while received.readableBytes < length { try await receive() }
        guard let bytes = received.readSlice(length: length) else { throw Closed() }
        return bytes
    }

    /// Reads until the server closes; a reset counts as that.
    package func remainder() async -> ByteBuffer {
        do {
            while true { try await receive() }
        } catch {}
        let rest = received
        received = ByteBuffer()
        return rest
    }

    private func receive() async throws {
        guard var bytes = try await inbound.next() else { throw Closed() }
        received.writeBuffer(&bytes)
    }
}
