import ArgumentParser
import Foundation
import Synchronization

/// A reverse proxy of a registry that counts what it sends, limits its rate, and does wrong when it is told to.
///
/// One thread a connection, which blocks: it is made for some hundreds of them. Requests have no body, and responses a
/// length, as those of a registry for pulls do.
final class HTTPRelay: Sendable {
    /// What the relay does to the bodies of blobs that it sends; or to all requests.
    enum Fault: String, CaseIterable, Sendable {
        case none
        /// One byte of each is another.
        case lie
        /// The connection is reset in the middle.
        case reset
        /// The connection is closed in the middle.
        case truncate
        /// Nothing comes after the middle, until there is another fault.
        case stall
        /// Connections are closed at once.
        case refuse
        /// The first response with a large blob has an eighth of the rate; the others are as usual.
        case slowFirst
    }

    /// What was sent so far.
    struct Counters: Sendable {
        var bodyBytes = 0
        var manifestGets = 0
        var manifestHeads = 0
        var blobGets = 0

        static func - (after: Counters, before: Counters) -> Counters {
            Counters(
                bodyBytes: after.bodyBytes - before.bodyBytes, manifestGets: after.manifestGets - before.manifestGets,
                manifestHeads: after.manifestHeads - before.manifestHeads, blobGets: after.blobGets - before.blobGets)
        }
    }

    private let upstreamPort: Int
    private let rate: RateLimiter?
    private let slowRate: RateLimiter?
    private let isSlowOneTaken = Mutex(false)
    /// From which size on a blob is large.
    private static let largeBytes = 1 << 20
    private let delay: Duration
    private let currentFault = Mutex(Fault.none)
    private let currentCounters = Mutex(Counters())
    private static let chunk = 64 << 10

    /// - Parameters:
    ///   - host: the address to listen on.
    ///   - upstreamPort: on the loopback interface.
    ///   - bytesPerSecond: of all responses together.
    ///   - delay: before each response.
    init(host: String, port: Int, upstreamPort: Int, bytesPerSecond: Int? = nil, delay: Duration = .zero) throws {
        self.upstreamPort = upstreamPort
        self.delay = delay
        rate = bytesPerSecond.map { RateLimiter(bytesPerSecond: $0) }
        slowRate = bytesPerSecond.map { RateLimiter(bytesPerSecond: max(1, $0 / 8)) }
        let listener = try ListeningSocket(host: host, port: port)
        Thread.detachNewThread { [self] in
            while let client = listener.accept() {
                Thread.detachNewThread { [self] in
                    // A connection that breaks concerns its two ends only.
                    try? serve(client)
                }
            }
        }
    }

    var counters: Counters { currentCounters.withLock { $0 } }

    var fault: Fault {
        get { currentFault.withLock { $0 } }
        set { currentFault.withLock { $0 = newValue } }
    }

    func set(_ fault: Fault) {
        isSlowOneTaken.withLock { $0 = false }
        currentFault.withLock { $0 = fault }
    }

    /// Whether the response is the one that is slow.
    private func takesSlowOne(_ length: Int) -> Bool {
        guard fault == .slowFirst, length >= Self.largeBytes else { return false }
        return isSlowOneTaken.withLock { isTaken in
            defer { isTaken = true }
            return !isTaken
        }
    }

    private func serve(_ client: ClientSocket) throws {
        guard fault != .refuse else { return }
        let upstream = try ClientSocket(port: upstreamPort, timeoutSeconds: 120)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.chunk, alignment: 4096)
        defer { buffer.deallocate() }
        while fault != .refuse, let request = try Self.head(of: client, buffer) {
            let words = request.text.prefix { $0 != "\r\n" && $0 != "\r" }.split(separator: " ")
            guard words.count == 3, request.early.isEmpty else { return }
            let (isHead, path) = (words[0] == "HEAD", words[1])
            try upstream.send(request.text)
            guard let response = try Self.head(of: upstream, buffer) else { return }
            let length = isHead ? 0 : try Self.length(of: response.text)
            let (isManifest, isBlob) = (path.contains("/manifests/"), path.contains("/blobs/"))
            currentCounters.withLock { counters in
                if isManifest { if isHead { counters.manifestHeads += 1 } else { counters.manifestGets += 1 } }
                if isBlob, !isHead { counters.blobGets += 1 }
            }
            if delay > .zero { Self.sleep(delay) }
            try client.send(response.text)
            var body = BodySender(
                relay: self, client: client, length: length, spoils: isBlob && length > 0,
                isSlow: isBlob && takesSlowOne(length))
            try response.early.withUnsafeBytes { try body.send(UnsafeMutableRawBufferPointer(mutating: $0)) }
            while body.sent < length {
                let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, length - body.sent)])
                let count = try upstream.receive(into: room)
                try body.send(UnsafeMutableRawBufferPointer(rebasing: room[..<count]))
            }
            if [request.text, response.text].contains(where: { $0.lowercased().contains("\r\nconnection: close") }) {
                return
            }
        }
    }

    /// Sends the body of one response, and carries out the fault.
    private struct BodySender {
        let relay: HTTPRelay
        let client: ClientSocket
        let length: Int
        let spoils: Bool
        let isSlow: Bool
        var sent = 0

        mutating func send(_ bytes: UnsafeMutableRawBufferPointer) throws {
            guard !bytes.isEmpty else { return }
            let middle = length / 2
            if spoils, (sent..<sent + bytes.count).contains(middle) {
                switch relay.fault {
                case .lie: bytes[middle - sent] ^= 0xff
                case .reset:
                    client.resetWhenClosed()
                    throw BenchmarkError("reset")
                case .truncate: throw BenchmarkError("truncated")
                case .stall: while relay.fault == .stall { HTTPRelay.sleep(.milliseconds(50)) }
                case .none, .refuse, .slowFirst: break
                }
            }
            (isSlow ? relay.slowRate : relay.rate)?.wait(for: bytes.count)
            try client.send(UnsafeRawBufferPointer(bytes))
            sent += bytes.count
            relay.currentCounters.withLock { $0.bodyBytes += bytes.count }
        }
    }

    /// Reads a head, of at most the buffer's size.
    ///
    /// - Returns: its text, and what came after it; nil at the end of the connection.
    static func head(
        of socket: ClientSocket, _ buffer: UnsafeMutableRawBufferPointer
    ) throws -> (text: String, early: [UInt8])? {
        var filled = 0
        while filled < buffer.count {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            guard let count = try? socket.receive(into: room) else { return nil }
            filled += count
            guard let end = buffer[..<filled].firstRange(of: Array("\r\n\r\n".utf8)) else { continue }
            let text = String(decoding: buffer[..<end.upperBound], as: UTF8.self)
            return (text, Array(buffer[end.upperBound..<filled]))
        }
        throw BenchmarkError("a head of more than \(buffer.count) bytes")
    }

    private static func length(of head: String) throws -> Int {
        for line in head.components(separatedBy: "\r\n") where line.lowercased().hasPrefix("content-length:") {
            if let length = Int(line.dropFirst(15).trimmingCharacters(in: .whitespaces)) { return length }
        }
        let status = head.split(separator: " ").dropFirst().first
        guard status == "304" || status == "204" else { throw BenchmarkError("a response without a length") }
        return 0
    }

    fileprivate static func sleep(_ duration: Duration) {
        usleep(useconds_t(max(0, duration / .microseconds(1))))
    }
}

/// Divides a rate among all who wait, in the order in which they come.
private final class RateLimiter: Sendable {
    private let bytesPerSecond: Double
    private let next = Mutex(ContinuousClock.now)

    init(bytesPerSecond: Int) { self.bytesPerSecond = Double(bytesPerSecond) }

    func wait(for bytes: Int) {
        let now = ContinuousClock.now
        let pause = next.withLock { next -> Duration in
            // What was not used does not add up.
            next = max(next, now) + .seconds(Double(bytes) / bytesPerSecond)
            return next - now
        }
        HTTPRelay.sleep(pause)
    }
}

/// A listening TCP socket.
final class ListeningSocket: Sendable {
    private let descriptor: CInt

    init(host: String, port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var one: CInt = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<CInt>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw BenchmarkError("\(host) is no address") }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0, listen(descriptor, 1024) == 0 else {
            throw BenchmarkError("cannot listen on \(host):\(port): \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    /// Waits for a connection; nil when there can be none any more.
    func accept() -> ClientSocket? {
        while true {
            let client = Foundation.accept(descriptor, nil, nil)
            if client >= 0 {
                _ = fcntl(client, F_SETFD, FD_CLOEXEC)
                return ClientSocket(adopting: client)
            }
            guard errno == EINTR || errno == ECONNABORTED else { return nil }
        }
    }
}

/// A relay in front of a daemon, as a process of its own in the namespace of a node. Each line of its standard input is the
/// name of the fault from then on; it ends with its standard input.
struct LyingRelayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "lying-relay", shouldDisplay: false)

    @Option var port: Int
    @Option var upstreamPort: Int

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let relay = try HTTPRelay(host: "0.0.0.0", port: port, upstreamPort: upstreamPort)
        print("listening")
        fflush(nil)
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            Thread.detachNewThread {
                while let line = readLine() { if let fault = HTTPRelay.Fault(rawValue: line) { relay.set(fault) } }
                continuation.resume()
            }
        }
    }
}
