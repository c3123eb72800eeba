import Foundation
import OCIDistribution
import TestSupport

/// A TCP connection that sends exactly the bytes it is given.
///
/// Its calls block, so they run on threads of their own. A read or write that gets nowhere for 60 s fails.
final class RawConnection: @unchecked Sendable {
    private let descriptor: Int32
    private let queue = DispatchQueue(label: "raw connection")
    private var pending: [UInt8] = []
    private var buffer = [UInt8](repeating: 0, count: 256 * 1024)

    /// A response with a body of known length.
    struct Response: Sendable {
        var status: Int
        var headers: [(name: String, value: String)]
        var body: [UInt8]

        /// The value of a header field, whatever its case.
        func header(_ name: String) -> String? {
            headers.first { $0.name.lowercased() == name.lowercased() }?.value
        }

        var text: String { String(decoding: body, as: UTF8.self) }
    }

    /// Connects.
    init(_ address: String, _ port: Int, receiveBuffer: Int32? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw POSIXFailure("socket", errno) }
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        if var receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, socklen_t(MemoryLayout<Int32>.size))
        }
        var name = try LoopbackAddress.socketAddress(address, port: port)
        let result = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else {
            let code = errno
            // Not closed here: everything is initialised, so that deinit runs and closes it.
            throw POSIXFailure("connect \(address):\(port)", code)
        }
    }

    deinit {
        close(descriptor)
    }

    private func blocking<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: Result { try work() }) }
        }
    }

    /// Sends bytes.
    func send(_ bytes: [UInt8]) async throws {
        try await blocking { [self] in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes {
                    Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw POSIXFailure("send", errno) }
                rest = rest.dropFirst(count)
            }
        }
    }

    /// Sends a request without a body and reads its response.
    ///
    /// - Parameter toleratesShortBody: Whether a body may end before its announced length.
    func request(
        _ method: String, _ uri: String, headers: [String: String] = [:], toleratesShortBody: Bool = false
    ) async throws -> Response {
        var text = "\(method) \(uri) HTTP/1.1\r\nHost: test\r\n"
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) { text += "\(name): \(value)\r\n" }
        if toleratesShortBody { text += "Connection: close\r\n" }
        try await send(Array((text + "\r\n").utf8))
        if toleratesShortBody {
            var response = try await responseHead()
            response.body = try await readToEnd()
            return response
        }
        return try await response(hasBody: method != "HEAD")
    }

    /// Reads a response.
    func response(hasBody: Bool = true) async throws -> Response {
        var response = try await responseHead()
        guard hasBody, let length = response.header("content-length").flatMap(Int.init) else { return response }
        response.body = try await read(count: length)
        return response
    }

    /// Reads a response up to the end of its head.
    func responseHead() async throws -> Response {
        try await blocking { [self] in
            let end = Array("\r\n\r\n".utf8)
            while true {
                if let range = pending.firstRange(of: end) {
                    let head = String(decoding: pending[..<range.lowerBound], as: UTF8.self)
                    pending.removeFirst(range.upperBound)
                    return try Self.parse(head)
                }
                guard pending.count < 1 << 20 else { throw HarnessFailure("endless response head") }
                guard try fill() else {
                    throw HarnessFailure(
                        "the connection ended in a response head: \(String(decoding: pending, as: UTF8.self))")
                }
            }
        }
    }

    /// Reads exactly this many bytes.
    func read(count: Int) async throws -> [UInt8] {
        try await blocking { [self] in
            while pending.count < count {
                guard try fill() else {
                    throw HarnessFailure("the connection ended \(count - pending.count) bytes early")
                }
            }
            let result = Array(pending.prefix(count))
            pending.removeFirst(count)
            return result
        }
    }

    /// Reads so many bytes and hashes them as they come.
    ///
    /// - Parameter progress: Told how many have come.
    /// - Returns: How many came before the end, and whether they are all there and have the digest.
    func verify(
        _ digest: Digest, count: Int, progress: @Sendable (Int) async throws -> Void
    ) async throws -> (bytes: Int, isRight: Bool) {
        var verifier = DigestVerifier(expected: digest, size: Int64(count))
        var got = 0
        do {
            while true {
                if !pending.isEmpty {
                    try pending.withUnsafeBytes { try verifier.update($0) }
                    got += pending.count
                    pending.removeAll(keepingCapacity: true)
                    try await progress(got)
                }
                guard got < count, try await blocking({ [self] in try fill() }) else { break }
            }
            guard got == count else { return (got, false) }
            try verifier.finish()
            return (got, true)
        } catch {
            return (got, false)
        }
    }

    /// Reads until the other side closes.
    func readToEnd() async throws -> [UInt8] {
        try await blocking { [self] in
            while try fill() {}
            defer { pending = [] }
            return pending
        }
    }

    private func fill() throws -> Bool {
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count > 0 {
                pending += buffer[..<count]
                return true
            }
            if count == 0 { return false }
            if errno != EINTR { throw POSIXFailure("recv", errno) }
        }
    }

    private static func parse(_ head: String) throws -> Response {
        let lines = head.components(separatedBy: "\r\n")
        let parts = lines[0].split(separator: " ", maxSplits: 2)
        guard parts.count >= 2, parts[0].hasPrefix("HTTP/1."), let status = Int(parts[1]) else {
            throw HarnessFailure("no HTTP response: \(lines[0])")
        }
        let headers = lines.dropFirst().compactMap { line -> (String, String)? in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (String(line[..<colon]), line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces))
        }
        return Response(status: status, headers: headers, body: [])
    }
}
