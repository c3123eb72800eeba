import NIOCore
import NIOPosix

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// An address to listen on: `:5000`, `10.0.0.1:5000`, `[::1]:5000` or `localhost:5000`.
///
/// Without a host it stands for all addresses of the machine, IPv4 and IPv6. Port 0 lets the system choose. A name is
/// resolved when the server starts, and all of its addresses are listened on.
public struct ListenAddress: Sendable, Hashable, LosslessStringConvertible {
    /// Text that is not a listen address.
    public struct ParseError: Error, Hashable, CustomStringConvertible {
        /// The text.
        public var input: String
        /// What is wrong with it.
        public var reason: String
        /// Text and reason.
        public var description: String {
            "invalid address \"\(input)\": \(reason); expected [HOST]:PORT such as :5000, 127.0.0.1:5000 or [::1]:5000"
        }
    }

    /// An IPv4 or IPv6 address or a name; nil for all addresses of the machine.
    public let host: String?
    /// The TCP port; 0 lets the system choose.
    public let port: UInt16

    /// An address to listen on.
    ///
    /// - Parameters:
    ///   - host: an IPv4 or IPv6 address (without brackets) or a name; nil for all addresses of the machine.
    ///   - port: the TCP port; 0 lets the system choose.
    public init(host: String?, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Reads `[HOST]:PORT`; an IPv6 address stands in brackets.
    public init(parsing text: String) throws(ParseError) {
        guard let colon = text.lastIndex(of: ":") else {
            throw ParseError(input: text, reason: "it has no port")
        }
        let portText = text[text.index(after: colon)...]
        guard !portText.isEmpty, portText.utf8.allSatisfy({ $0 &- 0x30 < 10 }), let port = UInt16(portText) else {
            throw ParseError(input: text, reason: "\"\(portText)\" is not a port from 0 to 65535")
        }
        var host = text[..<colon]
        if host.hasPrefix("[") {
            guard host.hasSuffix("]"), host.count > 2 else {
                throw ParseError(input: text, reason: "the brackets around the IPv6 address do not match")
            }
            host = host.dropFirst().dropLast()
            guard host.contains(":"), host.utf8.allSatisfy(Self.isIPv6Character) else {
                throw ParseError(input: text, reason: "\"\(host)\" is not an IPv6 address")
            }
        } else {
            guard !host.contains(":") else {
                throw ParseError(input: text, reason: "an IPv6 address stands in brackets")
            }
            guard host.utf8.count <= 253, host.utf8.allSatisfy(Self.isNameCharacter) else {
                throw ParseError(input: text, reason: "\"\(host)\" is neither an IP address nor a host name")
            }
        }
        self.init(host: host.isEmpty ? nil : String(host), port: port)
    }

    /// As ``init(parsing:)``, nil for text that is no address.
    public init?(_ description: String) {
        guard let address = try? ListenAddress(parsing: description) else { return nil }
        self = address
    }

    /// The address in the form it is parsed from.
    public var description: String {
        guard let host else { return ":\(port)" }
        return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    private static func isIPv6Character(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x66, 0x41...0x46, 0x3a, 0x2e: true
        // A zone such as %eth0.
        case 0x25, 0x67...0x7a, 0x47...0x5a, 0x2d, 0x5f: true
        default: false
        }
    }

    private static func isNameCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x7a, 0x41...0x5a, 0x2d, 0x2e, 0x5f: true
        default: false
        }
    }
}

/// A server could not listen on its address.
public struct ListenError: Error, CustomStringConvertible {
    /// The address.
    public var address: ListenAddress
    /// The system's error and, for common ones, the remedy.
    public var reason: String
    /// Address and reason.
    public var description: String { "cannot listen on \(address): \(reason)" }

    init(_ address: ListenAddress, _ reason: String) {
        self.address = address
        self.reason = reason
    }

    init(_ address: ListenAddress, _ error: any Error) {
        self.address = address
        guard let error = error as? IOError else {
            reason = "\(error)"
            return
        }
        let text = String(cString: strerror(error.errnoCode))
        switch error.errnoCode {
        case EADDRINUSE: reason = "\(text); another process listens there, stop it or choose another port"
        case EACCES: reason = "\(text); ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        case EADDRNOTAVAIL: reason = "\(text); this machine has no such address"
        default: reason = text
        }
    }
}

extension ListenAddress {
    /// The socket addresses to bind, each at most once, 16 at most. Blocks while a name is resolved.
    ///
    /// - Throws: ``ListenError``.
    func socketAddresses() throws -> [SocketAddress] {
        guard let host else {
            return [
                try SocketAddress(ipAddress: "::", port: Int(port)),
                try SocketAddress(ipAddress: "0.0.0.0", port: Int(port)),
            ]
        }
        var hints = addrinfo()
        #if canImport(Glibc)
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
            hints.ai_socktype = SOCK_STREAM
        #endif
        hints.ai_flags = AI_PASSIVE
        var found: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, String(port), &hints, &found)
        guard status == 0 else {
            throw ListenError(self, "\"\(host)\" cannot be resolved: \(String(cString: gai_strerror(status)))")
        }
        defer { freeaddrinfo(found) }
        var addresses: [SocketAddress] = []
        var next = found
        while let entry = next, addresses.count < 16 {
            next = entry.pointee.ai_next
            guard let raw = entry.pointee.ai_addr else { continue }
            let address: SocketAddress? =
                switch entry.pointee.ai_family {
                case AF_INET: raw.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { SocketAddress($0.pointee) }
                case AF_INET6: raw.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { SocketAddress($0.pointee) }
                default: nil
                }
            if let address, !addresses.contains(address) { addresses.append(address) }
        }
        guard !addresses.isEmpty else { throw ListenError(self, "\"\(host)\" has no IP address") }
        return addresses
    }
}
