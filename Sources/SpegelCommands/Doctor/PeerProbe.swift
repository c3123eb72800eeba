import AsyncHTTPClient
import Foundation
import Logging
import MirrorServer
import NIOCore
import NIOHTTP1
import NIOPosix
import NodeConfiguration
import OCIDistribution
import PeerRouting
import ServiceSupport

/// Asks the daemon on this node, its mirrors and its peers, as clients and other nodes do.
struct PeerProbe: Sendable {
    var metricsAddress: ListenAddress
    var registryAddress: ListenAddress
    var routerAddress: ListenAddress
    var credentials: BasicCredentials?
    /// The repository under which content is asked for; any will do, as it is found by its digest.
    private static let repository = "spegel/doctor"
    /// The registry under which content is asked for when none is mirrored by name.
    var registry = "docker.io"
    /// The time for one answer.
    private static let timeout: TimeAmount = .seconds(1)
    /// Bytes of one blob that is fetched at most.
    private static let fetchLimit = 8 << 20
    /// Peers that are compared, and keys that are tried.
    private static let attempts = 5

    func examine(_ evidence: inout DoctorEvidence, logger: Logger) async {
        evidence.metricsAddress = "\(local(metricsAddress))"
        async let mirrorAnswers = mirrorAnswers(evidence)
        let status: MirrorNode.Status
        do {
            status = try await self.status()
        } catch {
            evidence.daemon = .failure(DoctorProbeError(Self.words(error)))
            evidence.mirrorAnswers = await mirrorAnswers
            return
        }
        evidence.daemon = .success(
            DoctorEvidence.Daemon(
                isReady: status.isReady, reason: status.reason, peerID: status.localPeer?.id, peers: status.peers.count,
                advertisedKeys: status.advertisedKeyCount))
        async let registry = answer("http://\(local(registryAddress))/v2/", credentials?.authorization)
        async let router = connects(to: routerAddress)
        async let peers = peerEvidence(status, logger: logger)
        async let openFiles = daemonOpenFileLimit()
        evidence.mirrorAnswers = await mirrorAnswers
        if let limit = await openFiles { evidence.openFiles = limit }
        evidence.ports = ["--registry-addr \(local(registryAddress))": await registry]
        let routerAnswer = await router
        if status.localPeer != nil { evidence.ports?["--router-addr \(local(routerAddress))"] = routerAnswer }
        if let peers = await peers {
            evidence.clockOffsets = peers.clockOffsets
            evidence.ownKey = peers.ownKey
            evidence.fetch = peers.fetch
        }
    }

    private func mirrorAnswers(_ evidence: DoctorEvidence) async -> [String: DoctorEvidence.MirrorAnswer] {
        var targets: [String: String?] = [:]
        let names = evidence.registries.isEmpty ? ["_default"] : evidence.registries.map(\.host)
        for entry in evidence.hosts ?? [] where names.contains(entry.name) {
            guard targets.count < Self.attempts, let (target, authorization) = NodeFiles.firstHost(of: entry) else {
                continue
            }
            targets[target] = .some(authorization)
        }
        return await withTaskGroup(of: (String, DoctorEvidence.MirrorAnswer).self) { group in
            for (target, authorization) in targets {
                group.addTask { (target, await mirrorAnswer(target, authorization)) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    /// The answer of a host that containerd asks first. Every registry answers `/v2/`; a mirror has `/readyz`, too.
    private func mirrorAnswer(_ target: String, _ authorization: String?) async -> DoctorEvidence.MirrorAnswer {
        let base = await answer("\(target)/v2/", authorization)
        guard case .status(200) = base else { return base }
        switch await answer("\(target)/readyz", authorization) {
        case .status(200), .status(500), .status(503): return base
        case .status(let status): return .failed("is a registry, but no mirror: /readyz is \(status)")
        case .failed(let reason): return .failed("/readyz: \(reason)")
        }
    }

    // MARK: Peers

    private struct PeerEvidence: Sendable {
        var clockOffsets: [String: Double]
        var ownKey: (key: String, isFound: Bool, reason: String?)?
        var fetch: DoctorEvidence.Fetch?
    }

    /// The time for everything that needs peers.
    private static let peerTimeout: Duration = .milliseconds(2500)

    /// - Returns: Nil when the node has no router or knows no peer.
    private func peerEvidence(_ status: MirrorNode.Status, logger: Logger) async -> PeerEvidence? {
        guard let own = status.localPeer?.id, !status.peers.isEmpty else { return nil }
        let addresses = status.peers.prefix(Self.attempts).compactMap { $0.addresses.first }
        let deadline = ContinuousClock.now + Self.peerTimeout
        async let offsets = clockOffsets(of: addresses)
        async let foreign = fetchForeign(own: Set(status.advertisedKeys), at: addresses, until: deadline)
        let lookup = await lookUp(
            status.advertisedKeys.filter { $0.hasPrefix("sha256:") }, own: own, at: addresses, logger: logger)
        var fetch = await foreign
        if case .nothingShared = fetch { fetch = await fetchShared(lookup.shared, until: deadline) }
        return PeerEvidence(clockOffsets: await offsets, ownKey: lookup.ownKey, fetch: fetch)
    }

    /// The time for asking the cluster's DHT.
    private static let lookupTimeout: Duration = .seconds(2)

    private struct Lookup: Sendable {
        var ownKey: (key: String, isFound: Bool, reason: String?)?
        var shared: [(key: String, peer: Peer)] = []
    }

    /// Asks peers, without this node's help, who has content that this node advertises.
    private func lookUp(_ digests: [String], own: String, at addresses: [String], logger: Logger) async -> Lookup {
        guard let key = digests.randomElement() else { return Lookup() }
        let isLocal = addresses.allSatisfy { $0.hasPrefix("127.") || $0 == "::1" }
        let nodes = addresses.compactMap { try? NodeAddress.parse(Self.authority($0, routerAddress.port)) }
        let client = DHTClient(
            source: NodeList(nodes: nodes), clusterPort: routerAddress.port, isLocal: isLocal,
            timeout: Self.lookupTimeout,
            logger: logger)
        let tried = [key] + digests.shuffled().prefix(Self.attempts - 1)
        // Finding out why a peer does not answer takes longer than the answer is worth here.
        let lookup = await BoundedWait.answer(within: Self.lookupTimeout + .milliseconds(200)) {
            do {
                return try await client.joined { router in
                    var lookup = Lookup(ownKey: (key, false, nil))
                    for candidate in tried {
                        for await peer in router.providers(for: candidate, limit: 0) {
                            if "\(peer.id)" != own {
                                lookup.shared.append((candidate, peer))
                            } else if candidate == key {
                                lookup.ownKey?.isFound = true
                            }
                        }
                    }
                    return lookup
                }
            } catch {
                return Lookup(ownKey: (key, false, "\(error)"))
            }
        }
        return lookup ?? Lookup(ownKey: (key, false, "no peer answered within \(Self.lookupTimeout)"))
    }

    /// Fetches content that a peer has and this node lacks through this node's mirror, so that the request goes the whole
    /// way. What it lacks is known where a peer's status page can be read.
    private func fetchForeign(
        own: Set<String>, at addresses: [String], until deadline: ContinuousClock.Instant
    ) async -> DoctorEvidence.Fetch {
        var last = DoctorEvidence.Fetch.nothingShared
        let mirror = "http://\(local(registryAddress))"
        for address in addresses where ContinuousClock.now < deadline {
            let admin = "http://\(Self.authority(address, metricsAddress.port))"
            guard let status: MirrorNode.Status = try? await page("/debug/status", at: admin) else { continue }
            let foreign = status.advertisedKeys.filter { $0.hasPrefix("sha256:") && !own.contains($0) }.shuffled()
            for key in foreign.prefix(Self.attempts) where ContinuousClock.now < deadline {
                guard let digest = try? Digest(parsing: key) else { continue }
                do {
                    let count = try await get(digest, from: mirror, isPeer: false)
                    return .verified(digest: key, source: "\(address) through the mirror", bytes: count)
                } catch {
                    last = .failed(digest: key, reason: "\(address) has it, the mirror: \(Self.words(error))")
                }
            }
        }
        return last
    }

    /// Fetches content that this node has too from a peer, as the mirror would, and from this node.
    private func fetchShared(
        _ shared: [(key: String, peer: Peer)], until deadline: ContinuousClock.Instant
    ) async -> DoctorEvidence.Fetch {
        var last = DoctorEvidence.Fetch.nothingShared
        for (key, peer) in shared.prefix(Self.attempts) where ContinuousClock.now < deadline {
            guard let digest = try? Digest(parsing: key), let address = peer.addresses.first else { continue }
            let host = Self.authority("\(address)", registryAddress.port)
            do {
                let count = try await get(digest, from: "http://\(host)", isPeer: true)
                _ = try await get(digest, from: "http://\(local(registryAddress))", isPeer: false)
                return .verified(digest: key, source: "\(host), which this node has too", bytes: count)
            } catch {
                last = .failed(digest: key, reason: "\(host): \(Self.words(error))")
            }
        }
        return last
    }

    private static func authority(_ address: String, _ port: UInt16) -> String {
        address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)"
    }

    /// - Returns: The bytes of the content, whose digest is right; a large one is not read.
    private func get(_ digest: Digest, from base: String, isPeer: Bool) async throws -> Int {
        var request = HTTPClientRequest(url: "\(base)/v2/\(Self.repository)/blobs/\(digest)?ns=\(registry)")
        if isPeer { request.headers.add(name: "X-Spegel-Mirrored", value: "true") }
        if let credentials { request.headers.add(name: "Authorization", value: credentials.authorization) }
        let response = try await HTTPClient.shared.execute(request, timeout: Self.timeout)
        guard response.status == .ok else { throw DoctorProbeError("status \(response.status.code)") }
        let length = response.headers.first(name: "Content-Length").flatMap { Int($0) } ?? 0
        guard length <= Self.fetchLimit else { throw DoctorProbeError("\(length) bytes are too many to try") }
        let body = try await response.body.collect(upTo: Self.fetchLimit)
        guard Digest.hash(of: body.readableBytesView) == digest else {
            throw DoctorProbeError("the bytes do not match the digest")
        }
        return body.readableBytes
    }

    private func clockOffsets(of addresses: [String]) async -> [String: Double] {
        await withTaskGroup(of: (String, Double)?.self) { group in
            for address in addresses {
                group.addTask {
                    let url = "http://\(Self.authority(address, registryAddress.port))/v2/"
                    let response = try? await HTTPClient.shared.execute(
                        HTTPClientRequest(url: url), timeout: Self.timeout)
                    let date = response?.headers.first(name: "Date").flatMap { Self.httpDate($0) }
                    return date.map { (address, $0.timeIntervalSinceNow) }
                }
            }
            return await group.reduce(into: [:]) { offsets, offset in
                if let offset { offsets[offset.0] = offset.1 }
            }
        }
    }

    /// Reads an IMF-fixdate (RFC 9110, section 5.6.7) such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    static func httpDate(_ text: String) -> Date? {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let parts = text.split(whereSeparator: { $0 == " " || $0 == ":" || $0 == "," })
        guard parts.count == 8, parts[7] == "GMT", let day = Int32(parts[1]), let year = Int32(parts[3]),
            let month = months.firstIndex(of: String(parts[2])), let hour = Int32(parts[4]),
            let minute = Int32(parts[5]), let second = Int32(parts[6]), (1970...9999).contains(year)
        else { return nil }
        var fields = tm()
        (fields.tm_year, fields.tm_mon, fields.tm_mday) = (year - 1900, Int32(month), day)
        (fields.tm_hour, fields.tm_min, fields.tm_sec) = (hour, minute, second)
        return Date(timeIntervalSince1970: TimeInterval(timegm(&fields)))
    }

    /// The state of the daemon on this node.
    func status() async throws -> MirrorNode.Status { try await page("/debug/status") }

    /// The last requests of the daemon's registry.
    func requests() async throws -> [RequestLog.Entry] { try await page("/debug/requests") }

    /// The limit of the daemon's process, which counts more than that of this one; nil when it does not say.
    private func daemonOpenFileLimit() async -> UInt64? {
        let request = HTTPClientRequest(url: "http://\(local(metricsAddress))/metrics")
        guard let response = try? await HTTPClient.shared.execute(request, timeout: Self.timeout),
            let body = try? await response.body.collect(upTo: 4 << 20)
        else { return nil }
        let line = String(buffer: body).split(separator: "\n").first { $0.hasPrefix("process_max_fds ") }
        return line?.split(separator: " ").last.flatMap { Double($0) }.flatMap { UInt64(exactly: $0) }
    }

    /// A page of an admin server, by default this node's.
    private func page<Document: Decodable>(_ path: String, at base: String? = nil) async throws -> Document {
        let response = try await HTTPClient.shared.execute(
            HTTPClientRequest(url: "\(base ?? "http://\(local(metricsAddress))")\(path)"), timeout: Self.timeout)
        guard response.status == .ok else { throw DoctorProbeError("\(path): status \(response.status.code)") }
        let body = try await response.body.collect(upTo: 4 << 20)
        return try JSONDecoder().decode(Document.self, from: Data(body.readableBytesView))
    }

    private func answer(_ url: String, _ authorization: String?) async -> DoctorEvidence.MirrorAnswer {
        var request = HTTPClientRequest(url: url)
        if let authorization { request.headers.add(name: "Authorization", value: authorization) }
        do {
            return .status(Int(try await HTTPClient.shared.execute(request, timeout: Self.timeout).status.code))
        } catch {
            return .failed(Self.words(error))
        }
    }

    private func connects(to address: ListenAddress) async -> DoctorEvidence.MirrorAnswer {
        do {
            let channel = try await ClientBootstrap(group: HTTPClient.defaultEventLoopGroup).connectTimeout(
                Self.timeout
            )
            .connect(host: address.host ?? "127.0.0.1", port: Int(address.port)).get()
            try? await channel.close()
            return .status(200)
        } catch {
            return .failed(Self.words(error))
        }
    }

    /// Where a listener is reached on this machine.
    private func local(_ address: ListenAddress) -> ListenAddress {
        let host = address.host ?? "127.0.0.1"
        return ListenAddress(host: host == "0.0.0.0" ? "127.0.0.1" : host == "::" ? "::1" : host, port: address.port)
    }

    /// An error in a few words.
    static func words(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError where error == .connectTimeout || error == .deadlineExceeded:
            "no answer in time"
        default: plainReason(error)
        }
    }
}
