import NIOCore

@testable import Libp2p

/// Both sides of the negotiation of protocols.
func fuzzMultistream(_ input: UnsafeBufferPointer<UInt8>) {
    requireSameInPieces(input, "responder") { pieces in
        var responder = MultistreamResponder()
        var buffer = ByteBuffer()
        var output = ByteBuffer()
        for (index, var piece) in pieces.enumerated() {
            buffer.writeBuffer(&piece)
            do {
                guard
                    let name = try responder.receive(&buffer, output: &output, isSupported: { $0 == "/noise" })
                else { continue }
                for var rest in pieces[(index + 1)...] { buffer.writeBuffer(&rest) }
                return "\(name), \(buffer.readableBytes) left, answered \(String(buffer: output))"
            } catch {
                // How many refusals had been written before is a matter of timing, what was wrong is not.
                return "\(error)"
            }
        }
        require(output.readableBytes <= 16 * 4, "\(output.readableBytes) bytes of answers")
        return "answered \(String(buffer: output))"
    }
    requireSameInPieces(input, "initiator") { pieces in
        var initiator = MultistreamInitiator(["/tls/1.0.0", "/noise"])
        var buffer = ByteBuffer()
        var output = ByteBuffer()
        for (index, var piece) in pieces.enumerated() {
            buffer.writeBuffer(&piece)
            do {
                let outcome = try initiator.receive(&buffer, output: &output)
                guard outcome != .needsMore else { continue }
                for var rest in pieces[(index + 1)...] { buffer.writeBuffer(&rest) }
                return "\(outcome), \(buffer.readableBytes) left"
            } catch {
                return "\(error)"
            }
        }
        return "needs more"
    }
}
