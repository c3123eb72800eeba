import Logging
import NIOCore

/// Carries out the bootstrap rounds that a ``BootstrapSchedule`` asks for.
///
/// Lives on the driver's event loop; only the rounds themselves run as tasks, one at a time.
final class Bootstrapper: Sendable {
    private final class State {
        var schedule = BootstrapSchedule(seed: UInt64.random(in: 0 ... .max))
        var timer: Scheduled<Void>?
        var round: Task<Void, Never>?
        var isOnline = false
        var isStopped = false
        var wasAlone = false
    }

    /// The longest a round may take.
    private static let roundTimeout: Duration = .seconds(30)

    private let source: any BootstrapSource
    private let driver: KademliaDriver
    private let clusterPort: UInt16?
    private let logger: Logger
    private let state: NIOLoopBoundBox<State>
    private let onAlone: @Sendable (Bool) -> Void

    init(
        source: any BootstrapSource, driver: KademliaDriver, clusterPort: UInt16?, logger: Logger,
        onAlone: @escaping @Sendable (Bool) -> Void
    ) {
        self.source = source
        self.driver = driver
        self.clusterPort = clusterPort
        self.logger = logger
        self.onAlone = onAlone
        state = NIOLoopBoundBox.makeBoxSendingValue(State(), eventLoop: driver.eventLoop)
    }

    func start() {
        driver.eventLoop.execute { self.startRound() }
    }

    func stop() {
        driver.eventLoop.execute { [self] in
            let state = self.state.value
            state.isStopped = true
            state.timer?.cancel()
            state.round?.cancel()
        }
    }

    func connectivityChanged(isOnline: Bool) {
        driver.eventLoop.execute { [self] in
            let state = self.state.value
            state.isOnline = isOnline
            guard state.round == nil, !state.isStopped else { return }
            wait(isOnline ? state.schedule.cameOnline() : state.schedule.wentOffline())
            noteAlone(state)
        }
    }

    private func startRound() {
        let state = self.state.value
        guard state.round == nil, !state.isStopped else { return }
        state.round = Task {
            let outcome = await round()
            driver.eventLoop.execute { self.ended(outcome) }
        }
    }

    private func ended(_ outcome: BootstrapSchedule.Outcome) {
        let state = self.state.value
        state.round = nil
        guard !state.isStopped else { return }
        if case .failed(let reason) = outcome, !state.isOnline {
            logger.debug("bootstrap round failed", metadata: ["error": "\(reason)"])
        }
        wait(state.schedule.roundEnded(outcome, isOnline: state.isOnline))
        noteAlone(state)
    }

    private func noteAlone(_ state: State) {
        guard state.schedule.isAlone != state.wasAlone else { return }
        state.wasAlone = state.schedule.isAlone
        if state.wasAlone {
            logger.notice("a cluster of one: bootstrapping names no node but this; ready, and looking for others")
        }
        onAlone(state.wasAlone)
    }

    private func wait(_ amount: TimeAmount) {
        let state = self.state.value
        state.timer?.cancel()
        state.timer = driver.eventLoop.scheduleTask(in: amount) { [weak self] in self?.startRound() }
    }

    /// Gets the candidates and connects to all of them, each once.
    private func round() async -> BootstrapSchedule.Outcome {
        await withTaskGroup(of: BootstrapSchedule.Outcome.self) { group in
            group.addTask {
                do {
                    try await Task.sleep(for: Self.roundTimeout)
                } catch {}
                return .failed("no result within \(Self.roundTimeout)")
            }
            group.addTask { await self.connectToCandidates() }
            let outcome = await group.next() ?? .failed("cancelled")
            group.cancelAll()
            return outcome
        }
    }

    private func connectToCandidates() async -> BootstrapSchedule.Outcome {
        let host = driver.host
        let found: [BootstrapCandidate]
        do {
            found = try await source.candidates()
        } catch {
            return .failed("\(error)")
        }
        if source.namesNobody { return .onlySelf }
        guard !found.isEmpty else { return .failed("bootstrapping found no node at all, not even this one") }
        let own = host.listenAddresses + host.advertisedAddresses
        let port = clusterPort ?? host.listenAddresses.compactMap(\.tcpEndpoint?.port).first ?? 0
        let candidates = found.compactMap { $0.completed(port: port, own: host.peerID, ownAddresses: own) }
        guard !candidates.isEmpty else { return .onlySelf }
        let results = await withTaskGroup(of: Result<Bool, any Error>.self) { group in
            for candidate in candidates {
                group.addTask {
                    do {
                        return .success(try await self.connect(to: candidate))
                    } catch {
                        return .failure(error)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let connected = results.count { (try? $0.get()) == true }
        if connected > 0 { return .connected(connected) }
        // All that answered was this node, at an address it did not know as its own.
        if results.allSatisfy({ (try? $0.get()) == false }) { return .onlySelf }
        let reasons = results.compactMap { result in
            if case .failure(let error) = result { "\(error)" } else { nil }
        }
        return .failed(reasons.joined(separator: "; "))
    }

    /// Peers that are connected and yet did not bring this node online: identify or the check before their admission
    /// has failed, and nobody would repeat it soon.
    private func lookAgain(at peers: [PeerID]) {
        let host = driver.host
        driver.perform { node in
            guard !node.isOnline else { return }
            for peer in peers { host.identifyAgain(peer) }
            node.recheckOutsiders(now: .now())
        }
    }

    /// - Returns: False when the candidate turned out to be this node itself.
    private func connect(to candidate: BootstrapCandidate) async throws -> Bool {
        let host = driver.host
        if let id = candidate.id, host.isConnected(to: id) {
            lookAgain(at: [id])
            return true
        }
        let endpoints = Set(candidate.addresses.compactMap(\.tcpEndpoint))
        if candidate.id == nil {
            // Whoever is at one of these addresses may be connected already.
            let connected = try await driver.ask { node in
                node.connections.values.map(\.contact).filter { contact in
                    contact.addresses.contains { $0.tcpEndpoint.map(endpoints.contains) ?? false }
                }
            }
            if !connected.isEmpty {
                lookAgain(at: connected.map(\.id))
                return true
            }
        }
        do {
            _ = try await host.connect(to: candidate.id, addresses: candidate.addresses, ignoringBackOff: true)
            return true
        } catch HostError.dialledSelf {
            return false
        }
    }
}
