import NIOCore

@testable import MirrorServer

/// The heads of a peer's HTTP answers.
func fuzzHTTPResponse(_ input: UnsafeBufferPointer<UInt8>) {
    requireSameInPieces(input, "answers") { pieces in
        var parser = ResponseHeadParser()
        var buffer = ByteBuffer()
        var log: [String] = []
        do throws(PeerProtocolError) {
            for var piece in pieces {
                buffer.writeBuffer(&piece)
                while let head = try parser.next(from: &buffer) {
                    require((200..<600).contains(head.status), "status \(head.status)")
                    require(head.contentLength ?? 0 >= 0, "a body of \(head.contentLength ?? 0) bytes")
                    require(!head.isTransferEncoded || head.contentLength == nil, "two lengths")
                    log.append("\(head)")
                }
                require(buffer.readableBytes <= ResponseHeadParser.headLimit, "\(buffer.readableBytes) bytes are held")
            }
        } catch {
            require(!error.reason.isEmpty, "no reason")
            log.append("\(error)")
        }
        return log
    }
}
