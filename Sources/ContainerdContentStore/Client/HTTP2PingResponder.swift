import NIOCore

/// Answers HTTP/2 PING frames before NIO's HTTP/2 handler sees them.
///
/// containerd's gRPC server measures the bandwidth-delay product with a PING for every DATA frame it is sent. NIO's
/// handler answers those too, but counts them as a denial of service: after 200 control frames in 30 seconds it closes
/// the connection with `ENHANCE_YOUR_CALM`. The peer is a local daemon, which is trusted.
final class HTTP2PingResponder: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var filter = HTTP2PingFilter()

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var answered = false
        filter.process(unwrapInboundIn(data)) { output in
            switch output {
            case .bytes(let bytes):
                context.fireChannelRead(wrapInboundOut(bytes))
            case .ping(let payload):
                var frame = context.channel.allocator.buffer(capacity: 17)
                frame.writeBytes([0, 0, 8, 6, 1, 0, 0, 0, 0])
                frame.writeInteger(payload)
                context.write(wrapOutboundOut(frame), promise: nil)
                answered = true
            }
        }
        if answered { context.flush() }
    }
}

/// Takes PING frames that are not answers out of a stream of HTTP/2 frames (RFC 9113 §4.1, §6.7).
struct HTTP2PingFilter {
    enum Output {
        /// Bytes to pass on.
        case bytes(ByteBuffer)
        /// The opaque data of a PING to be answered.
        case ping(UInt64)
    }

    private static let headerLength = 9
    private static let pingLength = 17

    /// How many bytes of the current frame are still to be passed on.
    private var frameRemainder = 0
    /// The beginning of a frame that is too short to classify; fewer than 17 bytes.
    private var held = ByteBuffer()

    /// Processes the next bytes; `output` is called with everything that is complete, in order.
    mutating func process(_ bytes: ByteBuffer, output: (Output) -> Void) {
        var bytes = bytes
        if held.readableBytes > 0 {
            var joined = held
            held = ByteBuffer()
            joined.writeBuffer(&bytes)
            bytes = joined
        }
        // Forwarded in one piece up to the next PING.
        var passing = 0
        func pass() {
            guard passing > 0, let slice = bytes.readSlice(length: passing) else { return }
            passing = 0
            output(.bytes(slice))
        }
        while true {
            let available = bytes.readableBytes - passing
            if frameRemainder > 0 {
                let count = min(frameRemainder, available)
                frameRemainder -= count
                passing += count
                if frameRemainder > 0 { break }
                continue
            }
            let start = bytes.readerIndex + passing
            guard available >= Self.headerLength,
                let head = bytes.getInteger(at: start, as: UInt32.self),
                let flags = bytes.getInteger(at: start + 4, as: UInt8.self)
            else { break }
            let length = Int(head >> 8)
            let isPing = head & 0xff == 6 && flags & 1 == 0 && length == 8
            guard isPing else {
                frameRemainder = Self.headerLength + length
                continue
            }
            guard available >= Self.pingLength,
                let payload = bytes.getInteger(at: start + Self.headerLength, as: UInt64.self)
            else { break }
            pass()
            bytes.moveReaderIndex(forwardBy: Self.pingLength)
            output(.ping(payload))
        }
        pass()
        if bytes.readableBytes > 0 { held = ByteBuffer(buffer: bytes) }
    }
}
