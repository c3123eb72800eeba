import NIOCore

/// The side that proposes protocols: the dialler of a connection, or the opener of a stream.
///
/// Header and first proposal go out together. Payload may follow at once when the peer is known to support the first
/// proposal ("lazy"): the answers are then checked when they come.
struct MultistreamInitiator: Sendable {
    enum Outcome: Equatable, Sendable {
        case needsMore
        /// All bytes left in the input belong to the protocol.
        case agreed(String)
        /// The peer supports none of them.
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
                throw WireFormatError("\(proposals) protocols proposed, none of them supported")
            }
            MultistreamToken.append(MultistreamToken.notAvailable, to: &output)
        }
        return nil
    }
}

/// One line of multistream-select: varint length, text, newline; the length counts the newline.
/// See https://github.com/multiformats/multistream-select
enum MultistreamToken {
    /// The protocol's own name, which both sides send first.
    static let header = "/multistream/1.0.0"
    /// The answer to a protocol that is not supported.
    static let notAvailable = "na"
    /// Longest token accepted, newline included.
    static let maximumLength = 1024

    static func append(_ text: String, to buffer: inout ByteBuffer) {
        buffer.writeBytes(Varint.encode(UInt64(text.utf8.count + 1)))
        buffer.writeString(text)
        buffer.writeInteger(UInt8(ascii: "\n"))
    }

    /// Takes the next token; nil, and nothing taken, when it is not complete. Never needs more than about a KiB.
    static func read(from buffer: inout ByteBuffer) throws(WireFormatError) -> String? {
        var decoder = MultiformatsVarintDecoder()
        var prefixLength = 0
        for byte in buffer.readableBytesView {
            prefixLength += 1
            guard let length = try decoder.push(byte) else { continue }
            guard (1...UInt64(maximumLength)).contains(length) else {
                throw WireFormatError("multistream token of \(length) bytes")
            }
            guard buffer.readableBytes >= prefixLength + Int(length) else { return nil }
            buffer.moveReaderIndex(forwardBy: prefixLength)
            guard let line = buffer.readBytes(length: Int(length)), line.last == UInt8(ascii: "\n") else {
                throw WireFormatError("multistream token without newline")
            }
            guard let text = String(validating: line.dropLast(), as: UTF8.self) else {
                throw WireFormatError("multistream token is not UTF-8")
            }
            return text
        }
        return nil
    }
}
