import DequeModule
import Logging
import Metrics
import NIOCore
import OCIDistribution
import PeerRoutingCore

/// Whether what came is right, and what is done when it is not, or not all of it.
extension MirrorExchange {
    func bodyIsComplete() {
        phase = .checking
        monitor = nil
        guard let holdBack, holdBack.mode != .nothing else {
            return succeed(plan.coversWhole ? .off : .partial)
        }
        if let lane {
            lane.finish { result in self.checked(result) }
            return
        }
        checked(checkHeld())
    }

    /// Hashes a small held body.
    func checkHeld() -> Result<Void, VerificationError> {
        guard let holdBack else { return .success(()) }
        let bytes = holdBack.held
        guard let digest else { return .success(()) }
        var verifier = DigestVerifier(expected: digest, size: plan.total)
        do throws(VerificationError) {
            for chunk in bytes { try verifier.update(chunk.readableBytesView) }
            try verifier.finish()
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    func checked(_ result: Result<Void, VerificationError>) {
        guard case .checking = phase else { return }
        switch result {
        case .success: succeed(.verified)
        case .failure(let error): mismatch(error)
        }
    }

    func succeed(_ verification: MirrorMetrics.Verification) {
        let rest = holdBack?.release() ?? []
        if isManifest, !clients.isHeadWritten { settleManifestType(rest) }
        if !clients.isHeadWritten { clients.writeHead(finalHead()) }
        for bytes in rest { clients.write(bytes) }
        context.metrics.verification(verification)
        complete()
        clients.finish()
    }

    /// The head of a response that was held until now.
    func finalHead() -> ResponseHead {
        var head = responseHead()
        if let range = plan.range { head.contentLength = range.upperBound - range.lowerBound }
        return head
    }

    /// The bytes are known to be right, so they say better than the peer's header what they are.
    func settleManifestType(_ bytes: Deque<ByteBuffer>) {
        guard bytes.count > 0 else { return }
        if let digest, let known = loop.manifestType(of: digest) {
            manifestType = known
            return
        }
        var whole = bytes[0]
        for chunk in bytes.dropFirst() { whole.writeImmutableBuffer(chunk) }
        guard let type = MediaType.detect(manifestJSON: whole.readableBytesView) else { return }
        manifestType = type.rawValue
        if let digest, configuration.verification == .on { loop.remember(manifestType, of: digest) }
    }

    func mismatch(_ error: VerificationError) {
        context.metrics.verification(.mismatch)
        blameContributors(alone: contributors.count == 1)
        context.logger.warning(
            "peer content does not match its digest",
            metadata: [
                "key": "\(key)", "error": "\(error)",
                "peers": "\(contributors.map(\.description).joined(separator: " "))",
            ])
        guard !clients.isHeadWritten else { return breakOff("the content does not match its digest") }
        guard restarts < configuration.resolveRetries * 2 else { return finishWithout("every peer gave wrong content") }
        restart()
    }

    func blameContributors(alone: Bool) {
        let (contributors, digest) = (self.contributors, self.digest)
        context.directory.withScoreboard { scoreboard in
            for peer in contributors { scoreboard.blame(peer, for: digest, alone: alone, now: .now()) }
        }
    }

    /// Nobody carries on what was begun. Perhaps because it was wrong from the start: then others say so.
    ///
    /// - Returns: false when it is over.
    func restartsForLackOfProgress() -> Bool {
        if sawOtherLength { blameContributors(alone: false) }
        guard !clients.isHeadWritten, restarts < configuration.resolveRetries else { return false }
        restart()
        return true
    }

    /// Nothing has reached the client: begins again with somebody else.
    func restart() {
        restarts += 1
        dropBody()
        plan.restart()
        digest = request.distribution.digest
        distrusted.formUnion(contributors)
        contributors = []
        sawOtherLength = false
        fruitlessResumes = 0
        offsetAtBreak = 0
        startRace(patience: configuration.resolveTimeout)
    }

    /// The transfer broke off: somebody carries it on from the exact byte.
    func resume(after failure: PeerFailure, _ exchange: PeerExchange) {
        let peer = exchange.peer.id
        _ = remove { $0.exchange === exchange }
        monitor = nil
        brokeOff.insert(peer)
        context.metrics.peerFailed(failure.label)
        context.directory.withScoreboard {
            $0.penalise(peer, failure == .stalled ? .slow : .brokeOff, now: .now())
        }
        fruitlessResumes = plan.offset - offsetAtBreak >= Int64(configuration.resumeBytes) ? 1 : fruitlessResumes + 1
        offsetAtBreak = plan.offset
        guard fruitlessResumes <= configuration.fruitlessResumes else {
            if restartsForLackOfProgress() { return }
            return finishWithout("peers broke off \(fruitlessResumes) times")
        }
        context.metrics.resumes.increment()
        context.logger.debug(
            "transfer carries on with another peer",
            metadata: ["key": "\(key)", "offset": "\(plan.offset)", "peer": "\(peer)", "reason": "\(failure)"])
        startRace(patience: max(configuration.resolveTimeout, configuration.resumeTimeout))
    }
}
