import Foundation

/// A blocking TCP connection to a server on this machine.
final class ClientSocket {
    let descriptor: CInt

    /// - Parameters:
    ///   - host: an IPv4 address of this machine.
    ///   - receiveBuffer: bytes the kernel keeps for us at most; nil for its own choice.
    ///   - timeoutSeconds: after which a receive fails.
    init(host: String = "127.0.0.1", port: Int, receiveBuffer: Int? = nil, timeoutSeconds: Int = 60) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw BenchmarkError("cannot make a socket: \(String(cString: strerror(errno)))") }
        if let receiveBuffer {
            var size = CInt(receiveBuffer)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<CInt>.size))
        }
        var one: CInt = 1
        setsockopt(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<CInt>.size))
        var timeout = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw BenchmarkError("\(host) is no address") }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else {
            throw BenchmarkError("cannot connect to \(host):\(port): \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    func send(_ text: String) throws {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
            guard count > 0 else { throw BenchmarkError("cannot send: \(String(cString: strerror(errno)))") }
            rest = rest.dropFirst(count)
        }
    }

    /// Receives what there is.
    func receive(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
        guard count > 0 else {
            throw BenchmarkError(
                count == 0 ? "the server closed the connection" : "cannot receive: \(String(cString: strerror(errno)))")
        }
        return count
    }

    /// Sends a GET request and reads its response to the end into the same buffer over and over.
    ///
    /// - Returns: bytes of the body.
    func get(_ path: String, buffer: UnsafeMutableRawBufferPointer) throws -> Int64 {
        try send("GET \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        let (length, early) = try receiveHead(buffer: buffer)
        var rest = length - Int64(early)
        while rest > 0 {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, Int(clamping: rest))])
            rest -= Int64(try receive(into: room))
        }
        return length
    }

    /// Reads the head of a `200` response.
    ///
    /// - Returns: the content length, and how many bytes of the body came with the head.
    func receiveHead(buffer: UnsafeMutableRawBufferPointer) throws -> (length: Int64, early: Int) {
        var filled = 0
        while filled < min(buffer.count, 65_536) {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<min(buffer.count, 65_536)])
            filled += try receive(into: room)
            let bytes = buffer[..<filled]
            guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { continue }
            let head = String(decoding: bytes[..<end.lowerBound], as: UTF8.self)
            let lines = head.components(separatedBy: "\r\n")
            guard lines[0].contains(" 200 ") else { throw BenchmarkError("the server answered \(lines[0])") }
            for line in lines where line.lowercased().hasPrefix("content-length:") {
                if let length = Int64(line.dropFirst(15).trimmingCharacters(in: .whitespaces)) {
                    return (length, filled - end.upperBound)
                }
            }
            throw BenchmarkError("the response has no length")
        }
        throw BenchmarkError("the response has no end of its head")
    }
}
