/// One row of the multiaddr table: what a component's code and name are and how its value is written.
package struct MultiaddrProtocol: Hashable, Sendable {
    package enum ValueKind: Hashable, Sendable {
        case none
        case ip4, ip6
        /// Two bytes, decimal in text.
        case port
        /// One byte, decimal in text.
        case byte
        /// Length-prefixed UTF-8 that is not empty and holds no `/`.
        case name
        /// Length-prefixed UTF-8; in text all that is left of the address.
        case path
        /// Length-prefixed UTF-8, percent-encoded in text.
        case escapedText
        /// Length-prefixed multihash, base58 in text.
        case peerID
        /// Length-prefixed multihash, multibase base64url in text.
        case certificateHash
        /// 35 bytes of service address (base32 in text), then a port.
        case onion3
    }

    package let code: UInt64
    package let name: String
    package let kind: ValueKind

    package static let ip4 = MultiaddrProtocol(code: 4, name: "ip4", kind: .ip4)
    package static let tcp = MultiaddrProtocol(code: 6, name: "tcp", kind: .port)
    package static let ip6 = MultiaddrProtocol(code: 41, name: "ip6", kind: .ip6)
    package static let ip6zone = MultiaddrProtocol(code: 42, name: "ip6zone", kind: .name)
    package static let dns = MultiaddrProtocol(code: 53, name: "dns", kind: .name)
    package static let dns4 = MultiaddrProtocol(code: 54, name: "dns4", kind: .name)
    package static let dns6 = MultiaddrProtocol(code: 55, name: "dns6", kind: .name)
    package static let dnsaddr = MultiaddrProtocol(code: 56, name: "dnsaddr", kind: .name)
    package static let p2p = MultiaddrProtocol(code: 421, name: "p2p", kind: .peerID)

    package static let all: [MultiaddrProtocol] = [
        ip4, tcp, ip6, ip6zone, dns, dns4, dns6, dnsaddr, p2p,
        .init(code: 33, name: "dccp", kind: .port),
        .init(code: 43, name: "ipcidr", kind: .byte),
        .init(code: 132, name: "sctp", kind: .port),
        .init(code: 273, name: "udp", kind: .port),
        .init(code: 276, name: "p2p-webrtc-direct", kind: .none),
        .init(code: 280, name: "webrtc-direct", kind: .none),
        .init(code: 281, name: "webrtc", kind: .none),
        .init(code: 290, name: "p2p-circuit", kind: .none),
        .init(code: 400, name: "unix", kind: .path),
        .init(code: 443, name: "https", kind: .none),
        .init(code: 445, name: "onion3", kind: .onion3),
        .init(code: 448, name: "tls", kind: .none),
        .init(code: 449, name: "sni", kind: .name),
        .init(code: 454, name: "noise", kind: .none),
        .init(code: 460, name: "quic", kind: .none),
        .init(code: 461, name: "quic-v1", kind: .none),
        .init(code: 465, name: "webtransport", kind: .none),
        .init(code: 466, name: "certhash", kind: .certificateHash),
        .init(code: 477, name: "ws", kind: .none),
        .init(code: 478, name: "wss", kind: .none),
        .init(code: 480, name: "http", kind: .none),
        .init(code: 481, name: "http-path", kind: .escapedText),
    ]

    private static let byCode = Dictionary(uniqueKeysWithValues: all.map { ($0.code, $0) })
    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    package static func find(code: UInt64) -> MultiaddrProtocol? { byCode[code] }

    /// Finds a protocol by name; `ipfs` is the old name of `p2p`.
    package static func find(name: some StringProtocol) -> MultiaddrProtocol? {
        name == "ipfs" ? p2p : byName[String(name)]
    }
}
