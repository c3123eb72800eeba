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

/// Asks the daemon on this node, its mirrors and its peers, as clients and other nodes do.
struct PeerProbe: Sendable {
    var metricsAddress: ListenAddress
    var registryAddress: ListenAddress
    var routerAddress: ListenAddress
    var credentials: BasicCredentials?
    /// The repository under which content is asked for; any will do, as it is found by its digest.
    private static let repository = "spegel/doctor"
    /// The time for one answer.
    private static let timeout: TimeAmount = .seconds(1)
    /// Bytes of one blob that is fetched at most.
    private static let fetchLimit = 8 << 20
    /// Peers that are compared, and keys that are tried.
    private static let attempts = 5

    func examine(_ evidence: inout DoctorEvidence, logger: Logger) async {
        evidence.metricsAddress = "\(local(metricsAddress))"
        let status: MirrorNode.Status
        do {
            status = try await self.status()
            evidence.daemon = .success(
                DoctorEvidence.Daemon(
                    isReady: status.isReady, reason: status.reason, peerID: status.localPeer?.id,
                    peers: status.peers.count,
                    advertisedKeys: status.advertisedKeyCount))
        } catch {
            evidence.daemon = .failure(DoctorProbeError(Self.words(error)))
            await examineMirrors(&evidence)
            return
        }
        evidence.ports = [
            "--registry-addr \(local(registryAddress))": await answer(
                "http://\(local(registryAddress))/v2/", credentials?.authorization)
        ]
        if status.localPeer != nil {
            evidence.ports?["--router-addr \(local(routerAddress))"] = await connects(to: routerAddress)
        }
        await examineMirrors(&evidence)
        guard let own = status.localPeer, !status.peers.isEmpty else { return }
        await examinePeers(&evidence, status: status, own: own.id, logger: logger)
    }

    private func examineMirrors(_ evidence: inout DoctorEvidence) async {
        var asked: Set<String> = []
        let names = evidence.registries.isEmpty ? ["_default"] : evidence.registries.map(\.host)
        for entry in evidence.hosts ?? [] where names.contains(entry.name) {
            guard let (target, authorization) = NodeFiles.firstHost(of: entry), asked.insert(target).inserted,
                asked.count <= Self.attempts
            else { continue }
            evidence.mirrorAnswers[target] = await answer("\(target)/v2/", authorization)
        }
    }

    private func examinePeers(_ evidence: inout DoctorEvidence, status: MirrorNode.Status, own: String, logger: Logger)
        async
    {
        let addresses = status.peers.prefix(Self.attempts).compactMap { $0.addresses.first }
        evidence.clockOffsets = await clockOffsets(of: addresses)
        let digests = status.advertisedKeys.filter { $0.hasPrefix("sha256:") }
        guard let key = digests.randomElement() else { return }
        // A node without an identity that anybody keeps asks the peers, not this node.
        let isLocal = addresses.allSatisfy { $0.hasPrefix("127.") || $0 == "::1" }
        let nodes = addresses.compactMap {
            try? NodeAddress.parse($0.contains(":") ? "[\($0)]:\(routerAddress.port)" : "\($0):\(routerAddress.port)")
        }
        let client = DHTClient(
            source: NodeList(nodes: nodes), clusterPort: routerAddress.port, isLocal: isLocal, timeout: .seconds(2),
            logger: logger)
        do {
            let tried = [key] + digests.shuffled().prefix(Self.attempts - 1)
            let (isFound, shared) = try await client.joined { router in
                var isFound = false
                var shared: [(key: String, peer: Peer)] = []
                for candidate in tried {
                    for await peer in router.providers(for: candidate, limit: 0) {
                        if "\(peer.id)" == own {
                            isFound = isFound || candidate == key
                        } else {
                            shared.append((candidate, peer))
                        }
                    }
                }
                return (isFound, shared)
            }
            evidence.ownKey = (key, isFound, nil)
            evidence.fetch = await fetch(shared)
        } catch {
            evidence.ownKey = (key, false, "\(error)")
        }
    }

    /// Fetches content from a peer that this node has too: first as its mirror would, then through the mirror itself.
    private func fetch(_ shared: [(key: String, peer: Peer)]) async -> DoctorEvidence.Fetch {
        var last: DoctorEvidence.Fetch = .nothingShared
        for (key, peer) in shared.prefix(Self.attempts) {
            guard let digest = try? Digest(parsing: key), let address = peer.addresses.first else { continue }
            let host = address.isV6 ? "[\(address)]:\(registryAddress.port)" : "\(address):\(registryAddress.port)"
            do {
                let count = try await get(digest, from: "http://\(host)", isPeer: true)
                _ = try await get(digest, from: "http://\(local(registryAddress))", isPeer: false)
                return .verified(digest: key, source: host, bytes: count)
            } catch {
                last = .failed(digest: key, reason: "\(host): \(Self.words(error))")
            }
        }
        return last
    }

    /// - Returns: The bytes of the content, whose digest is right.
    private func get(_ digest: Digest, from base: String, isPeer: Bool) async throws -> Int {
        var request = HTTPClientRequest(url: "\(base)/v2/\(Self.repository)/blobs/\(digest)?ns=docker.io")
        if isPeer { request.headers.add(name: "X-Spegel-Mirrored", value: "true") }
        if let credentials { request.headers.add(name: "Authorization", value: credentials.authorization) }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(2))
        guard response.status == .ok else { throw DoctorProbeError("status \(response.status.code)") }
        let length = response.headers.first(name: "Content-Length").flatMap { Int($0) } ?? 0
        guard length <= Self.fetchLimit else { return length }
        let body = try await response.body.collect(upTo: Self.fetchLimit)
        guard Digest.hash(of: body.readableBytesView) == digest else {
            throw DoctorProbeError("the bytes do not match the digest")
        }
        return body.readableBytes
    }

    private func clockOffsets(of addresses: [String]) async -> [String: Double] {
        var offsets: [String: Double] = [:]
        for address in addresses {
            let host =
                address.contains(":") ? "[\(address)]:\(registryAddress.port)" : "\(address):\(registryAddress.port)"
            guard
                let response = try? await HTTPClient.shared.execute(
                    HTTPClientRequest(url: "http://\(host)/v2/"), timeout: Self.timeout),
                let text = response.headers.first(name: "Date"), let date = Self.httpDate(text)
            else { continue }
            offsets[address] = date.timeIntervalSinceNow
        }
        return offsets
    }

    private static func httpDate(_ text: String) -> Date? {
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.timeZone = TimeZone(identifier: "GMT")
        format.dateFormat = "EEE, dd MMM yyyy HH:mm:ss 'GMT'"
        return format.date(from: text)
    }

    /// The state of the daemon on this node.
    func status() async throws -> MirrorNode.Status { try await page("/debug/status") }

    /// The last requests of the daemon's registry.
    func requests() async throws -> [RequestLog.Entry] { try await page("/debug/requests") }

    private func page<Document: Decodable>(_ path: String) async throws -> Document {
        let response = try await HTTPClient.shared.execute(
            HTTPClientRequest(url: "http://\(local(metricsAddress))\(path)"), timeout: Self.timeout)
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

    private static func words(_ error: any Error) -> String {
        switch error {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as NIOConnectionError:
            error.connectionErrors.first.map { words($0.error) } ?? error.dnsAError.map { words($0) } ?? "\(error)"
        case let error as HTTPClientError where error == .connectTimeout || error == .deadlineExceeded:
            "no answer in time"
        default: "\(error)"
        }
    }
}
