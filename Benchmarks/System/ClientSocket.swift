import Foundation

/// A blocking TCP connection. Its state is the kernel's, so that it may go to another thread.
final class ClientSocket: Sendable {
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

    /// Takes over a connection.
    init(adopting descriptor: CInt) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Whether the other side has ended the connection, as far as is known without waiting.
    var hasEnded: Bool {
        var byte: UInt8 = 0
        let count = recv(descriptor, &byte, 1, CInt(MSG_PEEK) | CInt(MSG_DONTWAIT))
        return count == 0 || count < 0 && errno != EAGAIN && errno != EINTR
    }

    /// Lets the connection end with a reset.
    func resetWhenClosed() {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
    }

    func send(_ text: String) throws {
        var text = text
        try text.withUTF8 { try send(UnsafeRawBufferPointer($0)) }
    }

    func send(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = UnsafeRawBufferPointer(rebasing: rest)
            let count = Glibc.send(descriptor, piece.baseAddress, piece.count, CInt(MSG_NOSIGNAL))
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

    /// Sends a GET request and reads its whole response, which has to have a length.
    ///
    /// - Returns: the status code.
    func status(_ path: String) throws -> Int {
        try send("GET \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return try withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 16) { buffer in
            let (status, length, early) = try receiveAnyHead(buffer: buffer)
            var rest = length - Int64(early)
            while rest > 0 {
                let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, Int(clamping: rest))])
                rest -= Int64(try receive(into: room))
            }
            return status
        }
    }

    /// Sends a request and reads the head of its response; the connection is of no use afterwards.
    ///
    /// - Returns: the status code.
    func head(_ path: String, method: String = "HEAD") throws -> Int {
        try send("\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return try withUnsafeTemporaryAllocation(byteCount: 16_384, alignment: 16) { buffer in
            let count = try receive(into: buffer)
            let line = String(decoding: buffer[..<min(count, 16)], as: UTF8.self)
            guard let status = line.split(separator: " ").dropFirst().first.flatMap({ Int($0.prefix(3)) }) else {
                throw BenchmarkError("the server answered \(line)")
            }
            return status
        }
    }

    /// Reads the head of a `200` response.
    ///
    /// - Returns: the content length, and how many bytes of the body came with the head.
    func receiveHead(buffer: UnsafeMutableRawBufferPointer) throws -> (length: Int64, early: Int) {
        let (status, length, early) = try receiveAnyHead(buffer: buffer)
        guard status == 200 else { throw BenchmarkError("the server answered \(status)") }
        return (length, early)
    }

    private func receiveAnyHead(
        buffer: UnsafeMutableRawBufferPointer
    ) throws -> (status: Int, length: Int64, early: Int) {
        let size = min(buffer.count, 65_536)
        var filled = 0
        while filled < size {
            filled += try receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<size]))
            let bytes = buffer[..<filled]
            guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { continue }
            let head = String(decoding: bytes[..<end.lowerBound], as: UTF8.self)
            let lines = head.components(separatedBy: "\r\n")
            guard let status = lines[0].split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
                throw BenchmarkError("the server answered \(lines[0])")
            }
            for line in lines where line.lowercased().hasPrefix("content-length:") {
                if let length = Int64(line.dropFirst(15).trimmingCharacters(in: .whitespaces)) {
                    return (status, length, filled - end.upperBound)
                }
            }
            throw BenchmarkError("the response has no length")
        }
        throw BenchmarkError("the response has no end of its head")
    }
}
