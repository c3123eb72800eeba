import NIOCore

/// The 12-byte header of a yamux frame, all numbers big-endian.
/// See https://github.com/hashicorp/yamux/blob/master/spec.md
struct YamuxHeader: Equatable, Sendable {
    enum FrameType: UInt8, Sendable {
        /// `length` bytes of payload follow; no other type carries any.
        case data = 0
        /// `length` is added to the window; with RST it is an error code.
        case windowUpdate = 1
        /// `length` is an opaque value; SYN asks, ACK answers.
        case ping = 2
        /// `length` is a code.
        case goAway = 3
    }

    struct Flags: OptionSet, Sendable {
        let rawValue: UInt16
        static let syn = Flags(rawValue: 1)
        static let ack = Flags(rawValue: 2)
        static let fin = Flags(rawValue: 4)
        static let rst = Flags(rawValue: 8)
    }

    static let length = 12

    var type: FrameType
    var flags: Flags
    var streamID: UInt32
    var value: UInt32

    init(_ type: FrameType, _ flags: Flags, streamID: UInt32, value: UInt32) {
        self.type = type
        self.flags = flags
        self.streamID = streamID
        self.value = value
    }

    /// Takes the next header; nil, and nothing taken, when it is not complete.
    init?(from buffer: inout ByteBuffer) throws(YamuxError) {
        guard buffer.readableBytes >= Self.length,
            let (version, type, flags, streamID, value) = buffer.readMultipleIntegers(
                as: (UInt8, UInt8, UInt16, UInt32, UInt32).self)
        else { return nil }
        guard version == 0 else { throw YamuxError("version \(version)") }
        guard let known = FrameType(rawValue: type) else { throw YamuxError("frame type \(type)") }
        self.init(known, Flags(rawValue: flags), streamID: streamID, value: value)
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(UInt8(0), type.rawValue, flags.rawValue, streamID, value)
    }
}

/// A violation of the protocol that ends the session.
struct YamuxError: Error, Equatable, Sendable, CustomStringConvertible {
    let reason: String

    init(_ reason: String) {
        self.reason = reason
    }

    var description: String { "yamux: \(reason)" }
}
