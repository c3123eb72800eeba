import Logging
import Metrics
import NIOCore
import NIOHTTP1
import OCIDistribution
import PeerRoutingCore

/// The bytes on their way from the winner to the client.
extension MirrorExchange {
    // MARK: Transferring

    func begin(_ acceptance: TransferPlan.Acceptance, from exchange: PeerExchange) {
        clock.renew()
        plan.begin(acceptance)
        phase = .transferring(exchange)
        context.logger.debug(
            "a peer serves",
            metadata: ["key": "\(key)", "peer": "\(exchange.authority ?? "")", "offset": "\(plan.offset)"])
        if !contributors.contains(exchange.peer.id) { contributors.append(exchange.peer.id) }
        if request.isHead {
            return respondToHead(acceptance)
        }
        if holdBack == nil { prepareBody(acceptance) }
        monitor = ProgressMonitor(
            window: TimeAmount(configuration.peers.progressTimeout), minimum: Int64(configuration.peers.progressBytes),
            now: clock.now)
    }

    func respondToHead(_ acceptance: TransferPlan.Acceptance) {
        var head = responseHead()
        head.digest = acceptance.digest
        head.contentLength = acceptance.total
        complete()
        clients.writeHead(head)
        clients.finish()
    }

    /// Decides how much is held back, and begins the response unless it is everything.
    func prepareBody(_ acceptance: TransferPlan.Acceptance) {
        let length = plan.range.map { $0.upperBound - $0.lowerBound } ?? 0
        digest = acceptance.digest
        let checks = configuration.verification == .on && plan.coversWhole
        // An empty body is complete with its head, so that it is always held.
        let holds =
            checks && length <= Int64(configuration.heldContentBytes)
            && (length == 0 || context.memory.held.reserve(Int(length)))
        let mode: HoldBack.Mode
        if holds {
            reserved = Int(length)
            mode = .all
        } else if checks {
            mode = .tail(Int64(configuration.withheldBytes))
        } else {
            mode = .nothing
        }
        holdBack = HoldBack(mode: mode, length: length)
        // Small bodies are hashed at once where they are; large ones on other threads while they come.
        if mode != .nothing, length > HashLane.batch, let digest {
            lane = HashLane(
                expected: digest, size: length, pool: context.hashing, eventLoop: loop.eventLoop,
                onProgress: { self.readMore() })
        }
        if !isCounted {
            countTransfer()
        }
        if mode != .all { writeHead() }
    }

    func countTransfer() {
        isCounted = true
        context.memory.beginStream()
        context.metrics.activeTransfers.increment()
    }

    func responseHead() -> ResponseHead {
        var head = ResponseHead(.ok, contentLength: plan.remaining ?? 0)
        head.digest = digest
        head.namespace = request.distribution.registry
        head.acceptsRanges = !isManifest
        head.contentType = isManifest ? manifestType : MediaType.octetStream.rawValue
        if case .range = plan.wanted, let range = plan.range {
            head.status = .partialContent
            head.contentRange = .satisfied(range, size: plan.total)
        }
        return head
    }

    func writeHead() {
        deadline = nil
        closeToOthers()
        clients.writeHead(responseHead())
        // The first bytes follow at once, unless the peer is slow: then the head must not wait for them.
        clients.flush()
    }

    func take(_ bytes: ByteBuffer) {
        monitor?.received(bytes.readableBytes)
        context.metrics.receivedBytes.increment(by: bytes.readableBytes)
        var bytes = bytes
        let (skip, count) = plan.received(bytes.readableBytes)
        bytes.moveReaderIndex(forwardBy: skip)
        guard count > 0, let part = bytes.readSlice(length: count)?.withoutSpareStorage() else { return }
        _ = lane?.append(part)
        if let free = holdBack?.take(part) {
            clients.write(free)
            clients.flush()
        }
    }

    /// Reads on, unless the client or the hashing is behind.
    func readMore() {
        guard case .transferring(let exchange) = phase else { return }
        // Less than a batch waits for more before it is hashed.
        let behind = (lane?.pendingBytes ?? 0) > max(2 * context.memory.chunkBytes, HashLane.batch)
        let isWritable = clients.isWritable || holdBack?.mode == .all
        guard isWritable, !behind else {
            monitor?.pause()
            if !isWritable { waitForClients() }
            return
        }
        monitor?.resume(now: clock.now)
        exchange.read()
        schedule()
    }
}
