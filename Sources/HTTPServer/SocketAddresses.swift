import NIOCore
import NIOPosix

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A server could not listen where it was told to.
public struct ListenError: Error, CustomStringConvertible {
    /// Where it should have listened.
    public var address: ListenAddress
    /// What went wrong and, where it is known, what helps.
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
    /// The socket addresses to bind, each at most once. Blocks while a name is looked up.
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
            throw ListenError(self, "\"\(host)\" is not known: \(String(cString: gai_strerror(status)))")
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
