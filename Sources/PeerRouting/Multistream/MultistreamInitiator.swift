import NIOCore

/// The side that proposes protocols: the dialler of a connection, or the opener of a stream.
///
/// Header and first proposal go out together. Payload may follow at once when the peer is known to speak the first
/// proposal ("lazy"): the answers are then checked when they come.
struct MultistreamInitiator: Sendable {
    enum Outcome: Equatable, Sendable {
        case needsMore
        /// All bytes left in the input belong to the protocol.
        case agreed(String)
        /// The peer speaks none of them.
        case refused
    }

    private let proposals: [String]
    private var index = 0
    private var sawHeader = false

    /// - Parameter proposals: at least one, in order of preference.
    init(_ proposals: [String]) {
        self.proposals = proposals
    }

    /// What to send first.
    func start(into output: inout ByteBuffer) {
        MultistreamToken.append(MultistreamToken.header, to: &output)
        if let first = proposals.first { MultistreamToken.append(first, to: &output) }
    }

    /// Takes what it can from the input and adds further proposals to the output.
    mutating func receive(
        _ input: inout ByteBuffer, output: inout ByteBuffer
    ) throws(WireFormatError) -> Outcome {
        while index < proposals.count {
            guard let token = try MultistreamToken.read(from: &input) else { return .needsMore }
            if !sawHeader {
                guard token == MultistreamToken.header else {
                    throw WireFormatError("multistream header expected, got \(WireFormatError.quote(token))")
                }
                sawHeader = true
            } else if token == proposals[index] {
                return .agreed(token)
            } else if token == MultistreamToken.notAvailable {
                index += 1
                if index < proposals.count { MultistreamToken.append(proposals[index], to: &output) }
            } else {
                throw WireFormatError(
                    "answer \(WireFormatError.quote(token)) to proposal \(WireFormatError.quote(proposals[index]))")
            }
        }
        return .refused
    }
}
