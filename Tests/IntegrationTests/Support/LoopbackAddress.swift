import Foundation
import Synchronization

/// Addresses in 127.0.0.0/8 that no other test uses, so that a port picked on one stays free.
enum LoopbackAddress {
    private static let counter = Mutex(0)

    /// An address of its own for each caller in this process, the first of `count` consecutive ones; processes differ in
    /// the middle part.
    static func next(_ count: Int = 1) -> String {
        let number = counter.withLock { counter in
            defer { counter += count }
            return counter + 1
        }
        let process = Int(getpid())
        return "127.\(20 + process % 200).\(process / 200 % 250).\(1 + number % 250)"
    }

    /// The address so many after another one, as the demonstration counts its nodes.
    static func after(_ address: String, _ offset: Int) -> String {
        let parts = address.split(separator: ".")
        return parts.dropLast().joined(separator: ".") + ".\((Int(parts.last ?? "0") ?? 0) + offset)"
    }

    /// A port that nothing listens on at the address.
    static func freePort(on address: String) throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw POSIXFailure("socket", errno) }
        defer { close(descriptor) }
        var name = try socketAddress(address, port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                bind(descriptor, name, length) == 0 && getsockname(descriptor, name, &length) == 0
            }
        }
        guard bound else { throw POSIXFailure("bind \(address)", errno) }
        return Int(UInt16(bigEndian: name.sin_port))
    }

    static func socketAddress(_ address: String, port: Int) throws -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = UInt16(port).bigEndian
        guard inet_pton(AF_INET, address, &name.sin_addr) == 1 else {
            throw HarnessFailure("\(address) is no IPv4 address")
        }
        return name
    }
}
