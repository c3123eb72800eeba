import ArgumentParser
import PeerRouting

/// Where the first peers come from: the options of all subcommands that join a cluster.
struct BootstrapOptions: ParsableArguments {
    @Option(help: "Where the first peers come from: dns, http or static.", transform: BootstrapKind.parse)
    var bootstrapKind: BootstrapKind?

    @Option(help: "Name whose addresses are the first peers.", transform: ScalarOption.text)
    var dnsBootstrapDomain: String?

    @Option(help: "URL of a list of peers.", transform: ScalarOption.httpURL)
    var httpBootstrapUrl: String?

    @Option(help: "Directory with ca.crt, tls.crt and tls.key for the bootstrap.", transform: ScalarOption.text)
    var httpBootstrapCertDir: String?

    @Option(help: "Multiaddresses of peers, with their IDs.", transform: ScalarOption.text)
    var staticBootstrapPeers: [String] = []

    func validate() throws {
        func require(_ present: Bool, _ option: String) throws {
            guard present else {
                throw ValidationError("'--bootstrap-kind \(bootstrapKind?.rawValue ?? "")' needs '\(option)'.")
            }
        }
        switch bootstrapKind {
        case .dns: try require(dnsBootstrapDomain != nil, "--dns-bootstrap-domain")
        case .http: try require(httpBootstrapUrl != nil, "--http-bootstrap-url")
        // Without peers it is a cluster's first node, which waits for others to connect.
        case .static, nil: break
        }
    }

    /// The source that was chosen; nil when none was.
    ///
    /// - Throws: ``StartFailure`` when an address is not one.
    func source() throws -> (any BootstrapSource)? {
        switch bootstrapKind {
        case .dns:
            return DNSBootstrapSource(domain: dnsBootstrapDomain ?? "")
        case .http:
            return HTTPBootstrapSource(url: httpBootstrapUrl ?? "", certificateDirectory: httpBootstrapCertDir)
        case .static:
            do {
                return try StaticBootstrapSource(staticBootstrapPeers.map { try Multiaddr(parsing: $0) })
            } catch {
                throw StartFailure(
                    "--static-bootstrap-peers: \(error)",
                    hint: "give multiaddresses such as /ip4/10.0.0.1/tcp/5001/p2p/ID")
            }
        case nil:
            return nil
        }
    }
}
