import Logging
import MirrorServer
import NIOCore
import NIOPosix
import PeerRouting

/// How a node takes part in a cluster.
struct PeerOptions: Sendable {
    var routerAddress: ListenAddress
    var bootstrap: any BootstrapSource
    /// Where to serve this node's own record for others to bootstrap by.
    var identityServerAddress: ListenAddress?
    var certificateDirectory: String?
    /// Keeps the identity; empty for a new one at each start.
    var dataDirectory = ""
    var resolveTimeout: Duration
    var resolveRetries: Int
    /// Networks that peers may be in; empty for what follows from this node's interfaces.
    var networks: [IPNetwork] = []
    var resolvesTags = true
    /// How content is fetched that no node holds yet; nil to leave it to the upstream.
    var coldStart: ColdStartConfiguration?
    var claims: ClaimLimits?

    /// The router, which is not started yet.
    ///
    /// - Throws: ``StartFailure`` when the identity cannot be read or made.
    func makeRouter(logger: Logger) throws -> KademliaRouter {
        do {
            return KademliaRouter(configuration: try routerConfiguration(logger: logger))
        } catch {
            throw StartFailure("the router does not start: \(error)", hint: "check --data-dir")
        }
    }

    /// The networks of this machine's interfaces; none when the system does not list them.
    private static var interfaceNetworks: [IPNetwork] {
        ((try? System.enumerateDevices()) ?? []).compactMap { device in
            guard let address = device.address.flatMap({ IPAddress($0) }) else { return nil }
            let mask = device.netmask.flatMap { IPAddress($0) }?.bytes ?? []
            let length = mask.reduce(0) { $0 + $1.nonzeroBitCount }
            return IPNetwork(address, prefixLength: length)
        }
    }

    private func routerConfiguration(logger: Logger) throws -> KademliaRouterConfiguration {
        let identity =
            dataDirectory.isEmpty
            ? NodeIdentity() : try NodeIdentity.loadOrCreate(inDirectory: dataDirectory)
        // As with the original, a name that is no address means all interfaces.
        let address = routerAddress.host.flatMap { IPAddress($0) }
        let port = routerAddress.port
        var configuration = KademliaRouterConfiguration(
            identity: identity,
            listenAddresses: (address.map { [$0] } ?? [.anyV4, .anyV6]).map { Multiaddr($0, tcpPort: port) },
            bootstrap: bootstrap, logger: logger)
        configuration.claims = claims
        configuration.agentVersion = "spegel-swift/\(Version.current)"
        // A node that listens on a loopback address alone has peers on this machine only.
        configuration.advertiseLoopback = address?.isLoopback ?? false
        configuration.addressPolicy.allowedNetworks =
            networks.isEmpty ? AddressPolicy.networks(ofInterfaces: Self.interfaceNetworks) : networks
        configuration.identityServerAddress = identityServerAddress?.description
        configuration.identityServerCertificateDirectory = certificateDirectory
        return configuration
    }
}
