import NIOCore

@testable import Libp2p

/// The frames of a multiplexer, in any order.
func fuzzYamux(_ input: UnsafeBufferPointer<UInt8>) {
    requireSameInPieces(input, "yamux") { pieces in
        var session = YamuxSession(isClient: false, maximumInboundStreams: 8, maximumOutboundStreams: 8)
        _ = session.open()
        var data: [UInt32: [UInt8]] = [:]
        var log: [String] = []
        var buffer = ByteBuffer()
        do {
            for var piece in pieces {
                buffer.writeBuffer(&piece)
                while let event = try session.nextEvent(from: &buffer) {
                    if case .data(let id, let chunk) = event {
                        require(data[id, default: []].count + chunk.readableBytes <= 4096, "more data than was sent")
                        data[id, default: []] += Array(chunk.readableBytesView)
                        session.consumed(chunk.readableBytes, on: id)
                    } else {
                        log.append("\(event)")
                    }
                    require(session.streamCount <= 9, "\(session.streamCount) streams")
                }
                require(buffer.readableBytes < YamuxHeader.length, "bytes are left lying")
            }
        } catch {
            log.append("\(error)")
        }
        // Each frame of the peer is answered by one of ours at most, and the session's end by another.
        require(session.output.readableBytes <= (input.count / 12 + 2) * 12, "too much output")
        return log + data.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
    }
}
