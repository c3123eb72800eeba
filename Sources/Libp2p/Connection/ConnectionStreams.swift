import NIOCore

/// The streams of a connection: dispatch of received bytes, sending, and the limits for each kind of stream.
extension Connection {
    func handle(_ event: YamuxSession.Event) {
        switch event {
        case .opened(let id):
            guard count(.negotiating) < limits.negotiatingStreams else {
                session.reset(id)
                return
            }
            let stream = MuxedStream(
                id: id, connection: self, handler: InboundNegotiation(environment: environment))
            streams[id] = stream
            adjustCount(.negotiating, 1)
            noteStreamCount()
            stream.handler.opened(stream)
        case .data(let id, var chunk):
            guard let stream = streams[id] else { return }
            if stream.inbound.readableBytes == 0 {
                stream.inbound = chunk
                deliver(stream)
                // What is left is copied, as the chunk may be a small part of a large buffer.
                if stream.inbound.readableBytes > 0 {
                    stream.inbound = ByteBuffer(bytes: stream.inbound.readableBytesView)
                }
            } else {
                stream.inbound.writeBuffer(&chunk)
                deliver(stream)
            }
        case .finished(let id):
            guard let stream = streams[id] else { return }
            stream.isRemoteFinished = true
            deliver(stream)
            closeIfFinished(stream)
        case .reset(let id, let code):
            guard let stream = streams[id] else { return }
            remove(stream, .resetByPeer(code))
        case .windowGrew(let id):
            if let stream = streams[id] { enqueue(stream) }
        case .pong:
            break
        case .goAway(let code):
            close("the peer ended the session with code \(code)")
        }
    }

    /// Passes received bytes to the stream's handler and accounts for those it does not take.
    func deliver(_ stream: MuxedStream) {
        guard !stream.isDelivering else {
            stream.deliversAgain = true
            return
        }
        stream.isDelivering = true
        defer { stream.isDelivering = false }
        repeat {
            guard !stream.isClosed else { return }
            stream.deliversAgain = false
            let before = stream.inbound.readableBytes
            stream.handler.received(stream)
            guard !stream.isClosed else { return }
            let left = stream.inbound.readableBytes
            if before > left { session.consumed(before - left, on: stream.id) }
            if left == 0 {
                stream.inbound = ByteBuffer()
            } else {
                stream.inbound.discardReadBytesIfSparse()
            }
        } while stream.deliversAgain
        charge(stream)
    }

    /// Updates the memory budget; a stream that would exceed it is reset.
    private func charge(_ stream: MuxedStream) {
        guard !stream.isClosed else { return }
        let bytes = stream.inbound.readableBytes + stream.outbound.readableBytes + stream.handler.bufferedBytes
        let more = bytes - stream.chargedBytes
        if more > 0, !environment.budget.reserve(more) {
            stream.reset("memory limit for streams reached")
            return
        }
        if more < 0 { environment.budget.release(-more) }
        stream.chargedBytes = bytes
    }

    /// Opens a stream for the handler, or lets it wait while as many are open as a peer may be expected to accept.
    /// ``StreamHandler/closed(_:_:)`` is called when that is impossible.
    func openStream(_ handler: any StreamHandler) {
        guard case .open = phase else {
            refuse(handler, .connectionClosed(closeReason ?? "closed"))
            return
        }
        guard let id = session.open() else {
            guard waiting.count < limits.waitingStreams else {
                refuse(handler, .reset("too many streams on the connection"))
                return
            }
            let until = eventLoop.now + limits.requestTimeout
            waiting.append((handler, until))
            wake(by: until)
            return
        }
        let stream = MuxedStream(id: id, connection: self, handler: handler)
        stream.category = .outbound
        streams[id] = stream
        adjustCount(.outbound, 1)
        noteStreamCount()
        batchDepth += 1
        handler.opened(stream)
        batchDepth -= 1
        flush()
    }

    /// Requests identify, unless a request is under way.
    func identifyPeer() {
        guard identifyRequester?.isDone ?? true else { return }
        let requester = IdentifyRequester(environment: environment)
        identifyRequester = requester
        openStream(requester)
    }

    private func refuse(_ handler: any StreamHandler, _ end: StreamEnd) {
        let stream = MuxedStream(id: 0, connection: self, handler: handler)
        stream.isClosed = true
        handler.closed(stream, end)
    }

    /// Moves a stream of the peer into the count of its protocol; false when that is full.
    func categorize(_ stream: MuxedStream, as category: StreamCategory, maximum: Int) -> Bool {
        guard count(category) < maximum else { return false }
        adjustCount(stream.category, -1)
        adjustCount(category, 1)
        stream.category = category
        return true
    }

    func enqueue(_ stream: MuxedStream) {
        guard !stream.isClosed, !stream.isQueued else { return }
        stream.isQueued = true
        sendQueue.append(stream)
        flush()
    }

    func reset(_ stream: MuxedStream, _ reason: String) {
        guard !stream.isClosed else { return }
        session.reset(stream.id)
        remove(stream, .reset(reason))
        flush()
    }

    private func closeIfFinished(_ stream: MuxedStream) {
        if !stream.isClosed, stream.isLocalFinished, stream.isRemoteFinished { remove(stream, .finished) }
    }

    private func remove(_ stream: MuxedStream, _ end: StreamEnd) {
        guard !stream.isClosed else { return }
        stream.isClosed = true
        streams[stream.id] = nil
        adjustCount(stream.category, -1)
        noteStreamCount()
        environment.budget.release(stream.chargedBytes)
        stream.chargedBytes = 0
        stream.inbound = ByteBuffer()
        stream.outbound = ByteBuffer()
        stream.handler.closed(stream, end)
        if stream.category == .outbound, isOpen, let next = waiting.popFirst() { openStream(next.handler) }
    }

    /// Ends all streams, those waiting to be opened as well.
    func endStreams(_ reason: String) {
        for stream in Array(streams.values) { remove(stream, .connectionClosed(reason)) }
        sendQueue.removeAll()
        while let next = waiting.popFirst() { refuse(next.handler, .connectionClosed(reason)) }
    }

    /// Calls the handlers of streams whose deadline has passed.
    ///
    /// - Returns: The next deadline.
    func expireStreams(_ now: NIODeadline) -> NIODeadline {
        while let first = waiting.first, first.until <= now {
            waiting.removeFirst()
            refuse(first.handler, .reset("timed out waiting for a free stream"))
        }
        for stream in Array(streams.values) {
            if let deadline = stream.deadline, deadline <= now {
                stream.deadline = nil
                stream.handler.expired(stream)
            }
        }
        let next = streams.values.reduce(NIODeadline.distantFuture) { min($0, $1.deadline ?? $0) }
        return min(next, waiting.first?.until ?? .distantFuture)
    }

    private func count(_ category: StreamCategory) -> Int { streamCounts[category] ?? 0 }

    private func adjustCount(_ category: StreamCategory, _ change: Int) {
        let count = count(category) + change
        streamCounts[category] = count == 0 ? nil : count
    }

    private func noteStreamCount() {
        handle?.noteActivity(streams: streams.count, at: eventLoop.now)
    }

    /// Moves the streams' outgoing bytes into the session's output, as far as the windows allow.
    func collectStreamData(while isWritable: Bool) {
        guard isWritable else { return }
        // At most one frame of each stream in turn, so that none delays the others.
        while session.output.readableBytes < Self.flushSize, let stream = sendQueue.popFirst() {
            stream.isQueued = false
            guard !stream.isClosed else { continue }
            let sent = session.write(&stream.outbound, on: stream.id)
            if stream.outbound.readableBytes > 0 {
                // With a closed window the stream comes back when it grows.
                if sent > 0 { enqueue(stream) }
            } else {
                if stream.outbound.capacity > 0 { stream.outbound = ByteBuffer() }
                if stream.finishRequested {
                    if !stream.isLocalFinished {
                        stream.isLocalFinished = true
                        session.finish(stream.id)
                        closeIfFinished(stream)
                    }
                } else if sent > 0 {
                    stream.handler.drained(stream)
                }
            }
            charge(stream)
        }
    }
}

extension ByteBuffer {
    /// Gives back the room of bytes that were read, once they are the larger part.
    fileprivate mutating func discardReadBytesIfSparse() {
        if readerIndex > readableBytes { discardReadBytes() }
    }
}
