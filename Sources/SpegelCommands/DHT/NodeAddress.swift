import MirrorServer
import PeerRouting

/// Where a node's router can be reached, and who it is if that is known.
struct NodeAddress: Hashable, Sendable, CustomStringConvertible {
    var multiaddr: Multiaddr

    /// The transform of options and arguments.
    @Sendable static func parse(_ text: String) throws -> NodeAddress {
        let expected = "[HOST]:PORT such as 10.0.0.1:5001, or a multiaddress such as /ip4/10.0.0.1/tcp/5001/p2p/ID"
        do {
            guard text.hasPrefix("/") else {
                let address = try ListenAddress(parsing: text)
                guard address.port != 0 else { throw OptionError("\(expected), with a port above 0") }
                return NodeAddress(address)
            }
            let multiaddr = try Multiaddr(parsing: text)
            guard multiaddr.tcpEndpoint != nil || multiaddr.dnsEndpoint != nil else { throw OptionError(expected) }
            return NodeAddress(multiaddr: multiaddr)
        } catch let error as OptionError {
            throw error
        } catch let error as ListenAddress.ParseError {
            throw OptionError("\(expected) (\(error.reason))")
        } catch {
            throw OptionError("\(expected) (\(error))")
        }
    }

    init(multiaddr: Multiaddr) {
        self.multiaddr = multiaddr
    }

    /// The node that listens there, on this machine when no host, or the unspecified one, is named.
    init(_ address: ListenAddress) {
        let host = address.host ?? "127.0.0.1"
        if let ip = IPAddress(host) {
            let loopback: IPAddress = ip.isV6 ? .loopbackV6 : .loopbackV4
            multiaddr = Multiaddr(ip.isUnspecified ? loopback : ip, tcpPort: address.port)
        } else {
            // A name's characters were checked when the address was read.
            multiaddr =
                (try? Multiaddr(parsing: "/dns/\(host)/tcp/\(address.port)"))
                ?? Multiaddr(.loopbackV4, tcpPort: address.port)
        }
    }

    /// Whether it is an address of this machine alone.
    var isLoopback: Bool { multiaddr.tcpEndpoint?.address.isLoopback ?? false }

    var description: String { multiaddr.description }
}

/// Nodes named by hand.
struct NodeList: BootstrapSource {
    var nodes: [NodeAddress]

    func candidates() -> [BootstrapCandidate] { nodes.map { BootstrapCandidate($0.multiaddr) } }
}
