import NIOCore

/// The side that answers proposals.
struct MultistreamResponder: Sendable {
    private let maximumProposals: Int
    private var proposals = 0
    private var sawHeader = false

    /// - Parameter maximumProposals: after so many without agreement the negotiation fails.
    init(maximumProposals: Int = 16) {
        self.maximumProposals = maximumProposals
    }

    /// What to send first, without waiting for the initiator.
    func start(into output: inout ByteBuffer) {
        MultistreamToken.append(MultistreamToken.header, to: &output)
    }

    /// Takes what it can from the input and adds answers to the output.
    ///
    /// - Returns: the protocol agreed, after which all bytes left in the input belong to it; nil when more is needed.
    mutating func receive(
        _ input: inout ByteBuffer, output: inout ByteBuffer, isSupported: (String) -> Bool
    ) throws(WireFormatError) -> String? {
        while let token = try MultistreamToken.read(from: &input) {
            if !sawHeader {
                guard token == MultistreamToken.header else {
                    throw WireFormatError("multistream header expected, got \(WireFormatError.quote(token))")
                }
                sawHeader = true
                continue
            }
            if isSupported(token) {
                MultistreamToken.append(token, to: &output)
                return token
            }
            proposals += 1
            guard proposals < maximumProposals else {
                throw WireFormatError("\(proposals) protocols proposed, none of them known")
            }
            MultistreamToken.append(MultistreamToken.notAvailable, to: &output)
        }
        return nil
    }
}
