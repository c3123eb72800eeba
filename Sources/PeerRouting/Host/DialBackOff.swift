import NIOCore

/// Where to dial.
enum DialTarget: Hashable, Sendable, CustomStringConvertible {
    case endpoint(TCPEndpoint)
    /// A name to be resolved.
    case name(String, port: UInt16)

    /// Nil when the address cannot be dialled by this module, or must not be.
    init?(_ address: Multiaddr) {
        if let endpoint = address.tcpEndpoint {
            let ip = endpoint.address
            guard endpoint.zone == nil, endpoint.port != 0, !ip.isUnspecified, !ip.isMulticast, !ip.isLinkLocal,
                !ip.isBroadcast
            else { return nil }
            self = .endpoint(endpoint)
        } else if let (name, port, _) = address.dnsEndpoint, port != 0 {
            self = .name(name, port: port)
        } else {
            return nil
        }
    }

    var description: String {
        switch self {
        case .endpoint(let endpoint): endpoint.description
        case .name(let name, let port): "\(name):\(port)"
        }
    }
}

/// Lets a peer's addresses that failed rest, longer each time, so that a peer that is away, or that limits connections,
/// is not hammered.
///
/// An address rests for the peer that was expected there, not for others: a node that starts again without its key is
/// somebody else at the same address.
struct DialBackOff: Sendable {
    private struct Key: Hashable {
        var target: DialTarget
        /// Nil when whoever answers was wanted.
        var peer: PeerID?
    }

    /// Addresses remembered.
    static let maximumEntries = 4096

    private let base: TimeAmount
    private let maximum: TimeAmount
    private var entries: [Key: (failures: Int64, until: NIODeadline)] = [:]

    init(limits: HostLimits) {
        base = limits.dialBackOffBase
        maximum = limits.dialBackOffMaximum
    }

    var count: Int { entries.count }

    /// Whether a failed dial is a reason to let the address rest.
    ///
    /// It is not when the reason lies with this host.
    static func counts(_ error: any Error) -> Bool {
        switch error {
        case HostError.dialledSelf, HostError.limitReached, HostError.shutDown: false
        default: true
        }
    }

    func isResting(_ target: DialTarget, of peer: PeerID?, now: NIODeadline) -> Bool {
        entries[Key(target: target, peer: peer)].map { $0.until > now } ?? false
    }

    mutating func failed(_ target: DialTarget, of peer: PeerID?, now: NIODeadline) {
        let key = Key(target: target, peer: peer)
        let failures = min((entries[key]?.failures ?? 0) + 1, 1000)
        let rest = min(base + .seconds(failures * failures), maximum)
        entries[key] = (failures, now + rest)
        guard entries.count > Self.maximumEntries else { return }
        entries = entries.filter { $0.value.until > now }
        guard entries.count > Self.maximumEntries else { return }
        for (key, _) in entries.sorted(by: { $0.value.until < $1.value.until }).prefix(Self.maximumEntries / 10) {
            entries[key] = nil
        }
    }

    mutating func succeeded(_ target: DialTarget, of peer: PeerID?) {
        entries[Key(target: target, peer: peer)] = nil
    }
}
