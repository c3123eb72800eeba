import Foundation
import Synchronization
import TestSupport

/// Addresses in 127.0.0.0/8 that no other test uses, so that a port picked on one stays free.
enum LoopbackAddress {
    private static let counter = Mutex(0)
    private static let lastPort = Mutex(10_000)

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

    /// A port that nothing listens on at the address; another one with each call.
    ///
    /// It is none of those that the kernel gives to whoever asks for any, from 32768 on: a daemon that asks for some of
    /// those too could be given it for another purpose first.
    static func freePort(on address: String) throws -> Int {
        for _ in 0..<20_000 {
            let port = lastPort.withLock { port -> Int in
                port = port < 30_000 ? port + 1 : 10_001
                return port
            }
            if try isFree(address, port) { return port }
        }
        throw HarnessFailure("no port is free on \(address)")
    }

    private static func isFree(_ address: String, _ port: Int) throws -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw POSIXFailure("socket", errno) }
        defer { close(descriptor) }
        var name = try socketAddress(address, port: port)
        let result = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result == 0 { return true }
        let code = errno
        guard code == EADDRINUSE else { throw POSIXFailure("bind \(address):\(port)", code) }
        return false
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
