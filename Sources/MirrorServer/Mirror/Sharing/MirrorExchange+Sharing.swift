import Metrics
import NIOCore
import OCIDistribution

/// One transfer for clients that ask for the same at the same time.
extension MirrorExchange {
    /// Takes no more clients.
    func closeToOthers() {
        guard isShared else { return }
        isShared = false
        loop.forget(self)
    }

    /// What was not found for the first client may be found for those who came later and have more time left: each asks
    /// on its own, with what is known by now.
    func continueAlone(_ followers: [ClientGroup.Client]) {
        for client in followers {
            MirrorExchange(client, loop: loop, context: context).start(isShared: false)
        }
    }

    /// One client is slower than the others, who wait for it: not for long.
    func waitForClients() {
        guard clients.count > 1, clientTimer == nil else { return }
        let bound = NIOLoopBound(self, eventLoop: loop.eventLoop)
        clientTimer = clock.timer(in: TimeAmount(configuration.clientPatience), on: loop.eventLoop) {
            bound.value.partFromBlocked()
        }
    }

    private func partFromBlocked() {
        clientTimer = nil
        guard case .transferring = phase else { return }
        for client in clients.takeBlocked() {
            context.logger.debug(
                "a slow client goes on alone", metadata: ["key": "\(key)", "offset": "\(plan.offset)"])
            MirrorExchange(client, loop: loop, context: context).carryOn(from: self)
        }
        readMore()
    }

    /// Carries a client's response on from where `other` is, with a transfer of its own: the same bytes were sent, are
    /// held back and count for the digest.
    private func carryOn(from other: MirrorExchange) {
        clients.delegate = self
        plan = other.plan
        digest = other.digest
        manifestType = other.manifestType
        contributors = other.contributors
        distrusted = other.distrusted
        holdBack = other.holdBack
        offsetAtBreak = plan.offset
        // How long the client's first lookup took was counted with the others.
        isResolved = true
        lane = other.lane?.fork { self.readMore() }
        countTransfer()
        startRace(patience: max(configuration.resolveTimeout, configuration.resumeTimeout))
    }
}

extension MirrorExchange: ClientGroupDelegate {
    func clientsAreWritable() {
        clientTimer?.cancel()
        clientTimer = nil
        readMore()
    }

    func clientsHaveGone() {
        end(isHit: nil)
    }
}
