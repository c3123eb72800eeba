import NIOCore

/// The multiplexer of one connection, without any I/O: received bytes become events, calls become bytes in ``output``.
///
/// Payload is passed on as it arrives, so nothing is stored here; the receiver's ``consumed(_:on:)`` opens the window.
struct YamuxSession: Sendable {
    enum Event: Equatable, Sendable {
        /// The peer opened a stream, which has been accepted.
        case opened(UInt32)
        case data(UInt32, ByteBuffer)
        /// The peer will send no more on the stream.
        case finished(UInt32)
        /// The peer ended the stream in both directions; the code is its reason, 0 for none.
        case reset(UInt32, code: UInt32)
        /// There is room again to write.
        case windowGrew(UInt32)
        /// The answer to a ping sent by this side.
        case pong(UInt32)
        /// The peer ends the session. It has ended, whatever the code.
        case goAway(UInt32)
    }

    /// Bytes each direction of a stream starts with, whatever either side would prefer.
    static let initialWindow: UInt32 = 262_144
    /// Most payload in a frame sent: frame and header fill one Noise message.
    static let maximumPayload = NoiseTransport.maximumPlaintext - YamuxHeader.length
    /// Answers to pings waiting in ``output``; further pings are dropped.
    static let maximumPendingPongs = 32

    private struct Stream {
        var sendWindow: UInt32 = initialWindow
        var receiveWindow: UInt32 = initialWindow
        /// Consumed by the reader and not yet granted again.
        var consumed: UInt32 = 0
        var localFinished = false
        var remoteFinished = false
    }

    private enum Step {
        case header
        case payload(YamuxHeader, remaining: UInt32)
        case flags(YamuxHeader)
    }

    private let isClient: Bool
    private let maximumInboundStreams: Int
    private let maximumOutboundStreams: Int
    private var streams: [UInt32: Stream] = [:]
    private var nextID: UInt32
    private var inboundCount = 0
    private var pendingPongs = 0
    private var step = Step.header

    /// Frames to be sent.
    private(set) var output = ByteBuffer()

    /// - Parameter isClient: true for the dialler, whose streams are odd.
    init(isClient: Bool, maximumInboundStreams: Int, maximumOutboundStreams: Int) {
        self.isClient = isClient
        self.maximumInboundStreams = maximumInboundStreams
        self.maximumOutboundStreams = maximumOutboundStreams
        nextID = isClient ? 1 : 2
    }

    /// Streams open in either direction.
    var streamCount: Int { streams.count }

    /// The frames to be sent, which are thereby removed.
    mutating func takeOutput() -> ByteBuffer {
        pendingPongs = 0
        defer { output = ByteBuffer() }
        return output
    }

    // MARK: Receiving

    /// The next event in the input; nil when more bytes are needed. To be called until it is nil.
    ///
    /// - Throws: when the session must end; a go away is in the output.
    mutating func nextEvent(from input: inout ByteBuffer) throws(YamuxError) -> Event? {
        do throws(YamuxError) {
            while true {
                switch step {
                case .header:
                    guard let header = try YamuxHeader(from: &input) else { return nil }
                    if let event = try begin(header) { return event }
                case .payload(let header, let remaining):
                    guard remaining > 0 else {
                        step = .flags(header)
                        continue
                    }
                    let count = min(Int(remaining), input.readableBytes)
                    guard count > 0, let chunk = input.readSlice(length: count) else { return nil }
                    step = .payload(header, remaining: remaining - UInt32(count))
                    // Frames of streams that have been removed are normal after a reset.
                    if let stream = streams[header.streamID], !stream.remoteFinished {
                        return .data(header.streamID, chunk)
                    }
                case .flags(let header):
                    step = .header
                    if let event = finish(header) { return event }
                }
            }
        } catch {
            goAway(code: 1)
            throw error
        }
    }

    private mutating func begin(_ header: YamuxHeader) throws(YamuxError) -> Event? {
        switch header.type {
        case .ping:
            if header.flags.contains(.ack) { return .pong(header.value) }
            if header.flags.contains(.syn), pendingPongs < Self.maximumPendingPongs {
                pendingPongs += 1
                YamuxHeader(.ping, .ack, streamID: 0, value: header.value).write(to: &output)
            }
            return nil
        case .goAway:
            return .goAway(header.value)
        case .data, .windowUpdate:
            break
        }
        let isNew = header.flags.contains(.syn)
        let isOpen = isNew ? try accept(header.streamID) : streams[header.streamID] != nil
        if header.type == .data {
            step = .payload(header, remaining: header.value)
            if isOpen { try takeFromWindow(header) }
        } else {
            step = .flags(header)
            if isOpen, !header.flags.contains(.rst), header.value > 0 {
                try grow(header.streamID, by: header.value)
                // A new stream is reported as opened; its window is as large as the frame says.
                if !isNew { return .windowGrew(header.streamID) }
            }
        }
        return isNew && isOpen ? .opened(header.streamID) : nil
    }

    /// Whether the stream was accepted; too many are reset.
    private mutating func accept(_ id: UInt32) throws(YamuxError) -> Bool {
        guard id != 0, (id % 2 == 1) != isClient else { throw YamuxError("stream \(id) opened by the wrong side") }
        guard streams[id] == nil else { throw YamuxError("stream \(id) opened twice") }
        guard inboundCount < maximumInboundStreams else {
            YamuxHeader(.windowUpdate, .rst, streamID: id, value: 0).write(to: &output)
            return false
        }
        inboundCount += 1
        streams[id] = Stream()
        // The one acknowledgement of the stream.
        YamuxHeader(.windowUpdate, .ack, streamID: id, value: 0).write(to: &output)
        return true
    }

    private mutating func takeFromWindow(_ header: YamuxHeader) throws(YamuxError) {
        guard var stream = streams[header.streamID], !stream.remoteFinished else { return }
        guard header.value <= stream.receiveWindow else {
            throw YamuxError(
                "\(header.value) bytes on stream \(header.streamID) whose window is \(stream.receiveWindow)")
        }
        stream.receiveWindow -= header.value
        streams[header.streamID] = stream
    }

    private mutating func grow(_ id: UInt32, by amount: UInt32) throws(YamuxError) {
        guard let window = streams[id]?.sendWindow else { return }
        let (sum, overflow) = window.addingReportingOverflow(amount)
        guard !overflow else { throw YamuxError("window of stream \(id) grows past 32 bits") }
        streams[id]?.sendWindow = sum
    }

    private mutating func finish(_ header: YamuxHeader) -> Event? {
        let id = header.streamID
        guard streams[id] != nil else { return nil }
        if header.flags.contains(.rst) {
            remove(id)
            return .reset(id, code: header.type == .windowUpdate ? header.value : 0)
        }
        guard header.flags.contains(.fin), streams[id]?.remoteFinished == false else { return nil }
        streams[id]?.remoteFinished = true
        if streams[id]?.localFinished == true { remove(id) }
        return .finished(id)
    }

    private mutating func remove(_ id: UInt32) {
        guard streams.removeValue(forKey: id) != nil else { return }
        if (id % 2 == 1) != isClient { inboundCount -= 1 }
    }

    // MARK: Sending

    /// Opens a stream; data may follow at once.
    ///
    /// - Returns: nil when too many are open, or the numbers are used up.
    mutating func open() -> UInt32? {
        guard streams.count - inboundCount < maximumOutboundStreams, nextID < .max - 2 else { return nil }
        let id = nextID
        nextID += 2
        streams[id] = Stream()
        YamuxHeader(.windowUpdate, .syn, streamID: id, value: 0).write(to: &output)
        return id
    }

    /// Sends as much of the data as window and one frame hold; what was sent is taken from it.
    ///
    /// - Returns: The number of bytes sent; 0 when the window is closed or the stream has ended.
    mutating func write(_ data: inout ByteBuffer, on id: UInt32) -> Int {
        guard let stream = streams[id], !stream.localFinished else { return 0 }
        let count = min(data.readableBytes, Int(stream.sendWindow), Self.maximumPayload)
        guard count > 0, var chunk = data.readSlice(length: count) else { return 0 }
        streams[id]?.sendWindow -= UInt32(count)
        YamuxHeader(.data, [], streamID: id, value: UInt32(count)).write(to: &output)
        output.writeBuffer(&chunk)
        return count
    }

    /// Sends FIN.
    mutating func finish(_ id: UInt32) {
        guard let stream = streams[id], !stream.localFinished else { return }
        streams[id]?.localFinished = true
        YamuxHeader(.windowUpdate, .fin, streamID: id, value: 0).write(to: &output)
        if stream.remoteFinished { remove(id) }
    }

    /// Sends RST.
    mutating func reset(_ id: UInt32) {
        guard streams[id] != nil else { return }
        remove(id)
        YamuxHeader(.windowUpdate, .rst, streamID: id, value: 0).write(to: &output)
    }

    /// Counts bytes that the receiver has consumed; grants them again once they are half a window.
    mutating func consumed(_ count: Int, on id: UInt32) {
        guard var stream = streams[id], !stream.remoteFinished else { return }
        stream.consumed += UInt32(clamping: count)
        if stream.consumed >= Self.initialWindow / 2 {
            YamuxHeader(.windowUpdate, [], streamID: id, value: stream.consumed).write(to: &output)
            stream.receiveWindow += stream.consumed
            stream.consumed = 0
        }
        streams[id] = stream
    }

    mutating func ping(_ value: UInt32) {
        YamuxHeader(.ping, .syn, streamID: 0, value: value).write(to: &output)
    }

    /// Announces the session's end: 0 normal, 1 protocol error.
    mutating func goAway(code: UInt32) {
        YamuxHeader(.goAway, [], streamID: 0, value: code).write(to: &output)
    }
}

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
