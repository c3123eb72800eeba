import Foundation
import NIOCore
import PeerTestKit
import TestSupport
import Testing

@testable import PeerRouting

/// Nodes that find each other in each of the ways there are.
@Suite(.timeLimit(.minutes(10))) struct JoiningTests {
    /// Candidates that are only known once a test has got so far.
    private struct LateSource: BootstrapSource {
        var body: @Sendable () async throws -> [BootstrapCandidate]

        func candidates() async throws -> [BootstrapCandidate] { try await body() }
    }

    private func port(_ router: KademliaRouter) throws -> UInt16 {
        try #require(router.host.listenAddresses.first?.tcpEndpoint).port
    }

    /// DNS names neither port nor ID: the port is our own, the ID is learnt.
    @Test func byDNS() async throws {
        let first = try makeRouter()
        try await withRouters(first) {
            let second = try makeRouter(address: "/ip4/127.0.0.2/tcp/\(port(first))") { configuration in
                configuration.bootstrap = DNSBootstrapSource(domain: "localhost")
            }
            try await withRouters(second) {
                try await second.joined()
                #expect(await second.knownPeers().map(\.id) == [first.peerID])
            }
        }
    }

    @Test func byAStaticListWithAName() async throws {
        let first = try makeRouter()
        try await withRouters(first) {
            let name = try Multiaddr(parsing: "/dns4/localhost/tcp/\(port(first))/p2p/\(first.peerID)")
            let second = try makeRouter(joining: [name])
            try await withRouters(second) {
                try await second.joined()
                try await first.joined()
            }
        }
    }

    /// Whoever is not there yet is asked again and again.
    @Test func byOneThatStartsLater() async throws {
        let identity = NodeIdentity()
        let address = try Multiaddr(parsing: "/ip4/127.0.77.1/tcp/\(reservedPort)")
        let second = try makeRouter(joining: [address.withPeerID(identity.peerID)])
        try await withRouters(second) {
            try await Task.sleep(for: .milliseconds(300))
            #expect(second.state == .joining && !second.isReady)
            let first = try makeRouter(identity: identity, address: address.description)
            try await withRouters(first) {
                try await second.joined()
            }
        }
    }

    /// A node that finds only itself says so, and is ready; it still joins when somebody comes.
    /// The first node of a cluster with a static list names nobody: it is ready, and others join by it.
    @Test func theFirstOfAStaticList() async throws {
        let first = try makeRouter { $0.bootstrap = try? StaticBootstrapSource([]) }
        try await withRouters(first) {
            try await eventually { first.isReady }
            #expect(first.state == .alone)
            let second = try makeRouter(joining: first.fullAddresses)
            try await withRouters(second) {
                try await second.joined()
                try await first.joined()
            }
        }
    }

    @Test func aloneAtFirst() async throws {
        let first = try makeRouter { configuration in
            let own = configuration.identity.peerID
            configuration.bootstrap = LateSource { [BootstrapCandidate(id: own, addresses: [])] }
        }
        try await withRouters(first) {
            try await eventually { first.state == .alone }
            #expect(first.isReady)
            let second = try makeRouter(joining: first.fullAddresses)
            try await withRouters(second) {
                try await first.joined()
                try await second.joined()
            }
        }
    }

    private func serving(certificates: String? = nil) throws -> KademliaRouter {
        try makeRouter { configuration in
            configuration.identityServerAddress = "127.0.0.1:0"
            configuration.identityServerCertificateDirectory = certificates
        }
    }

    private func joins(_ url: String, certificates: String?) async throws -> Bool {
        let router = try makeRouter { configuration in
            configuration.bootstrap = HTTPBootstrapSource(url: url, certificateDirectory: certificates)
        }
        return try await withJoined(router)
    }

    private func withJoined(_ router: KademliaRouter) async throws -> Bool {
        try await router.start()
        try await router.joined()
        await router.shutdown()
        return true
    }

    @Test func byHTTP() async throws {
        let first = try serving()
        try await withRouters(first) {
            let port = try #require(first.identityServerAddress?.port)
            let candidates = try await HTTPBootstrapSource.patient("http://127.0.0.1:\(port)/id").candidates()
            #expect(candidates == [BootstrapCandidate(id: first.peerID, addresses: first.host.advertisedAddresses)])
            #expect(try await joins("http://127.0.0.1:\(port)/id", certificates: nil))
            for (url, reason) in [
                ("http://127.0.0.1:\(port)/other", "404"), ("http://127.0.0.1:1/id", "refused"),
            ] {
                let error = await #expect(throws: BootstrapError.self) {
                    try await HTTPBootstrapSource.patient(url).candidates()
                }
                #expect(error?.description.contains(url) == true)
                #expect(error?.description.lowercased().contains(reason) == true, "\(String(describing: error))")
            }
        }
    }

    /// With certificates, neither side talks to anybody whose own is not from the same authority.
    @Test func byHTTPWithCertificatesOnBothSides() async throws {
        let ours = try await CertificateDirectory()
        let strangers = try await CertificateDirectory()
        let first = try serving(certificates: ours.path)
        try await withRouters(first) {
            let url = "https://127.0.0.1:\(try #require(first.identityServerAddress?.port))/id"
            #expect(try await joins(url, certificates: ours.path))
            // A client that trusts the server but shows another authority's certificate, or one that trusts neither.
            let mixed = try await CertificateDirectory()
            try mixed.take("ca.crt", from: ours)
            for certificates in [strangers.path, mixed.path] {
                await #expect(throws: BootstrapError.self) {
                    try await HTTPBootstrapSource(url: url, certificateDirectory: certificates).candidates()
                }
            }
            await #expect(throws: BootstrapError.self) { try await HTTPBootstrapSource(url: url).candidates() }
            try mixed.remove("tls.key")
            let error = await #expect(throws: BootstrapError.self) {
                try await HTTPBootstrapSource(url: url, certificateDirectory: mixed.path).candidates()
            }
            #expect(error?.description.contains("\(mixed.path)/tls.key") == true)
        }
    }

    @Test func anIdentityServerThatCannotStartSaysWhy() async throws {
        let first = try serving()
        try await withRouters(first) {
            let taken = try #require(first.identityServerAddress?.port)
            for (address, certificates, reason) in [
                ("127.0.0.1:\(taken)", nil, "127.0.0.1:\(taken)"), ("nowhere", nil, "HOST:PORT"),
                ("127.0.0.1:0", "/nowhere", "/nowhere/tls.crt"),
            ] as [(String, String?, String)] {
                let router = try makeRouter { configuration in
                    configuration.identityServerAddress = address
                    configuration.identityServerCertificateDirectory = certificates
                }
                let error = await #expect(throws: BootstrapError.self) { try await router.start() }
                #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
                await router.shutdown()
            }
        }
    }
}

/// A certificate authority and one certificate of it for 127.0.0.1, made by the `openssl` program.
private final class CertificateDirectory: Sendable {
    let path: String

    init() async throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("certificates-\(UUID())").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        try await openssl(
            ["req", "-x509", "-subj", "/CN=authority", "-keyout", "\(path)/ca.key", "-out", "\(path)/ca.crt"] + newKey)
        try await openssl(
            [
                "req", "-x509", "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-addext",
                "basicConstraints=CA:FALSE", "-CA", "\(path)/ca.crt", "-CAkey", "\(path)/ca.key", "-keyout",
                "\(path)/tls.key", "-out", "\(path)/tls.crt",
            ] + newKey)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    private func openssl(_ arguments: [String]) async throws {
        let status = try await PipedProcess.start(["openssl"] + arguments).wait()
        guard status == 0 else { throw HostError.badAnswer("openssl \(arguments[0]) ended with \(status)") }
    }

    func take(_ name: String, from other: CertificateDirectory) throws {
        try remove(name)
        try FileManager.default.copyItem(atPath: "\(other.path)/\(name)", toPath: "\(path)/\(name)")
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(path)/\(name)") }
}
