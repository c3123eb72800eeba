import NIOPosix

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Which kind of address a name is looked up for.
package enum AddressFamily: Sendable {
    case v4
    case v6
}

/// The system's resolver, which follows the machine's configuration (search domains, hosts file) and blocks: it runs
/// on a thread pool.
package enum NameResolver {
    /// The addresses of `name` in one family, sorted by number, without duplicates. Empty when there are none.
    ///
    /// - Throws: ``BootstrapError`` naming the name and the resolver's reason.
    package static func addresses(of name: String, family: AddressFamily) async throws -> [IPAddress] {
        try await NIOThreadPool.singleton.runIfActive { try lookUp(name, family) }
    }

    /// The addresses of `name` in both families, IPv4 first.
    ///
    /// - Throws: ``BootstrapError`` when the name has no address in either family.
    package static func addresses(of name: String) async throws -> [IPAddress] {
        if let literal = IPAddress(name) { return [literal] }
        let v4 = try? await addresses(of: name, family: .v4)
        let v6 =
            v4?.isEmpty ?? true
            ? try await addresses(of: name, family: .v6) : (try? await addresses(of: name, family: .v6))
        return (v4 ?? []) + (v6 ?? [])
    }

    private static func lookUp(_ name: String, _ family: AddressFamily) throws -> [IPAddress] {
        var hints = addrinfo()
        hints.ai_family = family == .v4 ? AF_INET : AF_INET6
        // One entry per address, not one per kind of socket.
        #if canImport(Glibc)
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
            hints.ai_socktype = SOCK_STREAM
        #endif
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(name, nil, &hints, &list)
        guard status == 0 else {
            #if canImport(Glibc)
                // The name exists, but not in this family (EAI_NODATA and EAI_ADDRFAMILY are not visible to Swift).
                if status == -5 || status == -9 { return [] }
            #endif
            throw BootstrapError("cannot resolve \(name): \(String(cString: gai_strerror(status)))")
        }
        defer { freeaddrinfo(list) }
        var found: Set<IPAddress> = []
        var next = list
        while let entry = next {
            if let address = address(entry.pointee) { found.insert(address) }
            next = entry.pointee.ai_next
        }
        return found.sorted()
    }

    private static func address(_ entry: addrinfo) -> IPAddress? {
        guard let raw = UnsafeRawPointer(entry.ai_addr) else { return nil }
        // Family and port come first, in IPv6 then the flow label; read by offset, as the structures are NIO's too.
        let length = Int(entry.ai_addrlen)
        switch entry.ai_family {
        case AF_INET where length >= 8:
            return IPAddress(bytes: UnsafeRawBufferPointer(start: raw + 4, count: 4))
        case AF_INET6 where length >= 24:
            return IPAddress(bytes: UnsafeRawBufferPointer(start: raw + 8, count: 16))
        default:
            return nil
        }
    }
}
