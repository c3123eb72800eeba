/// One component of a multiaddr: a protocol and its value's bytes, valid by construction.
package struct MultiaddrComponent: Hashable, Sendable {
    package let type: MultiaddrProtocol
    /// The value without its length prefix.
    package let value: ArraySlice<UInt8>

    /// Takes one component from binary.
    package init(from cursor: inout ByteCursor) throws(WireFormatError) {
        let code = try Varint.readMultiformats(from: &cursor)
        // The length of an unknown value is unknown too, so nothing after it can be read either.
        guard let type = MultiaddrProtocol.find(code: code) else {
            throw WireFormatError("unknown multiaddr protocol code \(code)")
        }
        switch type.kind {
        case .none: value = []
        case .ip4: value = try cursor.read(4)
        case .ip6: value = try cursor.read(16)
        case .port: value = try cursor.read(2)
        case .byte: value = try cursor.read(1)
        case .onion3: value = try cursor.read(37)
        case .name, .path, .escapedText, .peerID, .certificateHash: value = try cursor.readLengthPrefixed()
        }
        self.type = type
        try validate()
    }

    /// Makes a component whose value is text; `text` is empty for protocols without a value.
    package init(type: MultiaddrProtocol, text: Substring) throws(WireFormatError) {
        self.type = type
        value = try Self.parse(type, text)[...]
        try validate()
    }

    package init(type: MultiaddrProtocol, uncheckedValue: [UInt8]) {
        self.type = type
        value = uncheckedValue[...]
    }

    /// Number from a ``MultiaddrProtocol/ValueKind/port`` or one-byte value.
    package var number: UInt16 { value.reduce(0) { $0 << 8 | UInt16($1) } }

    package func append(to bytes: inout [UInt8]) {
        Varint.append(type.code, to: &bytes)
        switch type.kind {
        case .name, .path, .escapedText, .peerID, .certificateHash: Varint.append(UInt64(value.count), to: &bytes)
        case .none, .ip4, .ip6, .port, .byte, .onion3: break
        }
        bytes.append(contentsOf: value)
    }

    /// `/name` or `/name/value`.
    package var text: String {
        switch type.kind {
        case .none: return "/\(type.name)"
        case .ip4, .ip6: return "/\(type.name)/\(IPAddress(bytes: value)?.description ?? "")"
        case .port, .byte: return "/\(type.name)/\(number)"
        case .name: return "/\(type.name)/\(String(decoding: value, as: UTF8.self))"
        case .path:
            let path = String(decoding: value, as: UTF8.self)
            return "/\(type.name)\(path.hasPrefix("/") ? "" : "/")\(path)"
        case .escapedText: return "/\(type.name)/\(Self.escape(value))"
        case .peerID: return "/\(type.name)/\(Base58.encode(value))"
        case .certificateHash: return "/\(type.name)/u\(Base64.encode(value, .urlUnpadded))"
        case .onion3:
            let port = value.suffix(2).reduce(0) { $0 << 8 | UInt16($1) }
            return "/\(type.name)/\(Base32.encode(value.prefix(35))):\(port)"
        }
    }

    private func validate() throws(WireFormatError) {
        switch type.kind {
        case .name, .path, .escapedText:
            guard let text = String(validating: value, as: UTF8.self), !text.isEmpty, !text.utf8.contains(0) else {
                throw WireFormatError("/\(type.name) needs a value in UTF-8")
            }
            if type.kind == .name, text.utf8.contains(UInt8(ascii: "/")) {
                throw WireFormatError("/\(type.name) with a slash in its value \(WireFormatError.quote(text))")
            }
        case .peerID, .certificateHash:
            _ = try Multihash(parsing: value)
        case .none, .ip4, .ip6, .port, .byte, .onion3:
            break
        }
    }

    private static func parse(_ type: MultiaddrProtocol, _ text: Substring) throws(WireFormatError) -> [UInt8] {
        let invalid = WireFormatError("invalid value \(WireFormatError.quote(text)) of /\(type.name)")
        switch type.kind {
        case .none:
            return []
        case .ip4:
            guard let address = IPAddress(text), !address.isV6 else { throw invalid }
            return address.bytes
        case .ip6:
            guard let address = IPAddress(text), address.isV6 else { throw invalid }
            return address.bytes
        case .port:
            guard let number = decimal(text, as: UInt16.self) else { throw invalid }
            return [UInt8(number >> 8), UInt8(number & 0xff)]
        case .byte:
            guard let number = decimal(text, as: UInt8.self) else { throw invalid }
            return [number]
        case .name, .path:
            return Array(text.utf8)
        case .escapedText:
            guard let bytes = unescape(text) else { throw invalid }
            return bytes
        case .peerID:
            return try PeerID(parsing: text).bytes
        case .certificateHash:
            return try Multibase.decode(text)
        case .onion3:
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, let port = decimal(parts[1], as: UInt16.self), port > 0 else { throw invalid }
            let address = try Base32.decode(parts[0])
            guard address.count == 35 else { throw invalid }
            return address + [UInt8(port >> 8), UInt8(port & 0xff)]
        }
    }

    private static func decimal<Number: FixedWidthInteger>(_ text: Substring, as _: Number.Type) -> Number? {
        guard (1...5).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Number(text)
    }

    private static func escape(_ bytes: ArraySlice<UInt8>) -> String {
        var text = ""
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                text.unicodeScalars.append(UnicodeScalar(byte))
            default:
                text += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return text
    }

    private static func unescape(_ text: Substring) -> [UInt8]? {
        var bytes: [UInt8] = []
        var rest = Substring(text).utf8[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%") {
                guard let high = rest.popFirst(), let low = rest.popFirst(),
                    let first = Character(UnicodeScalar(high)).hexDigitValue,
                    let second = Character(UnicodeScalar(low)).hexDigitValue
                else { return nil }
                bytes.append(UInt8(first << 4 | second))
            } else {
                bytes.append(byte)
            }
        }
        return bytes
    }
}

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
