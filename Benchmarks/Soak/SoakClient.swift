import Foundation
import OCIDistribution
import PeerRouting

/// One client: pulls with `ctr`, removals, and requests whose every byte is compared.
struct SoakClient {
    private let soak: Soak
    private var random: SplitMix64
    private var ledger: SoakLedger { soak.ledger }

    init(soak: Soak, seed: UInt64) {
        self.soak = soak
        random = SplitMix64(seed: seed)
    }

    mutating func next() async {
        guard let item = soak.items.randomElement(using: &random) else { return }
        let node = Int.random(in: soak.honest, using: &random)
        switch Int.random(in: 0..<20, using: &random) {
        case 0, 1: await pull(item.image, on: node)
        case 2: await remove(item.image, from: node)
        case 3: await askForAbsent(node)
        case 4...8: await ask(item.image, node, range: true)
        default: await ask(item.image, node, range: false)
        }
        try? await soak.pause(.milliseconds(Int.random(in: 0...60, using: &random)))
    }

    private func pull(_ image: ClusterImage, on node: Int) async {
        guard soak.take(node) else { return }
        defer { soak.release(node) }
        let before = soak.conditions
        let pull = await soak.cluster.pullOnce(image, on: node)
        let after = soak.conditions
        ledger.count(request: "pulls", bytes: pull.failure == nil ? image.bytes : 0)
        if let failure = pull.failure {
            soak.setHolds(false, node, image)
            // An image that went meanwhile is no longer pulled to its end.
            let isGone = !soak.items.contains { $0.image.tag == image.tag }
            ledger.report(
                .failedPull, "node \(node): \(failure.suffix(200))", excused: isGone || !before.heldUntil(after))
        } else {
            soak.setHolds(true, node, image)
        }
    }

    /// So that there is something to pull; the first honest holder keeps it.
    private func remove(_ image: ClusterImage, from node: Int) async {
        guard let item = soak.items.first(where: { $0.image.tag == image.tag }), item.holders[node] != nil,
            item.holders.keys.contains(where: { soak.honest.contains($0) && $0 < node }), soak.take(node)
        else { return }
        defer { soak.release(node) }
        soak.setHolds(false, node, image)
        _ = try? await soak.cluster.stores[node].ctr("images", "rm", "--sync", soak.cluster.name(image))
        ledger.count(request: "removals")
    }

    private mutating func askForAbsent(_ node: Int) async {
        let hex = (0..<4).map { _ in
            let digits = String(random.next(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
        let before = soak.conditions
        let response = await get(node, "blobs/sha256:\(hex)", range: nil)
        ledger.count(request: "requests for absent content")
        if response?.status != 404 {
            let text = response.map { "\($0.status)" } ?? "no answer"
            ledger.report(.badStatus, "node \(node), absent: \(text)", excused: !before.heldUntil(soak.conditions))
        }
    }

    private mutating func ask(_ image: ClusterImage, _ node: Int, range: Bool) async {
        guard let blob = image.blobs.randomElement(using: &random),
            let file = FileManager.default.contents(atPath: "\(image.directory)/blobs/sha256/\(blob.digest.hex)")
        else { return }
        let first = range ? Int.random(in: 0..<blob.bytes, using: &random) : 0
        let last = range ? Int.random(in: first..<blob.bytes, using: &random) : blob.bytes - 1
        let before = soak.conditions
        let isEstablished = soak.isEstablished(image)
        let response = await get(node, "blobs/\(blob.digest)", range: range ? first...last : nil)
        let after = soak.conditions
        let excused = !before.heldUntil(after) || !isEstablished || !soak.isEstablished(image)
        guard let response else {
            return ledger.report(.badStatus, "node \(node), \(blob.digest): no answer", excused: excused)
        }
        switch response.status {
        case 200, 206:
            ledger.count(request: range ? "ranges" : "blobs", bytes: response.body.count)
            let expected = response.status == 206 ? file[first...last] : file[...]
            let isWhole = response.body.count == response.length
            if isWhole, !response.body.elementsEqual(expected) {
                // A part cannot be verified, so that a peer's lie passes; the client finds it in the whole.
                ledger.report(
                    .wrongBytes, "node \(node), \(blob.digest), status \(response.status), \(response.length) bytes",
                    excused: response.status == 206 && (before.lies || after.lies))
            } else if !isWhole {
                // Cut short is how a transfer ends that cannot be completed or verified; then no length is fulfilled.
                ledger.report(
                    .badStatus, "node \(node), \(blob.digest): \(response.body.count) of \(response.length) bytes",
                    excused: excused)
            }
        case 404: ledger.report(.falseNotFound, "node \(node), \(blob.digest)", excused: excused)
        default: ledger.report(.badStatus, "node \(node), \(blob.digest): \(response.status)", excused: excused)
        }
    }

    /// On a thread of its own, as it blocks.
    private func get(_ node: Int, _ path: String, range: ClosedRange<Int>?) async -> RawResponse? {
        let path = "/v2/\(ClusterImage.repository)/\(path)?ns=\(Cluster.upstreamHost)"
        return await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    returning: try? RawResponse.get(
                        host: ClusterNetwork.address(node), port: 5000, path: path, range: range, limit: 64 << 20))
            }
        }
    }
}

/// A response as it came.
struct RawResponse: Sendable {
    var status: Int
    /// What its head announced; 0 if it announced nothing.
    var length: Int
    var body: [UInt8]

    /// Asks on a connection of its own, which gives up after 60 s without a byte.
    ///
    /// - Parameter limit: the most bytes that are read.
    static func get(
        host: String, port: Int, path: String, range: ClosedRange<Int>? = nil, limit: Int
    ) throws -> RawResponse {
        let socket = try ClientSocket(host: host, port: port, timeoutSeconds: 60)
        let field = range.map { "Range: bytes=\($0.lowerBound)-\($0.upperBound)\r\n" } ?? ""
        try socket.send("GET \(path) HTTP/1.1\r\nHost: \(host)\r\n\(field)Connection: close\r\n\r\n")
        var bytes: [UInt8] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 16)
        defer { buffer.deallocate() }
        while bytes.count < limit {
            let count = recv(socket.descriptor, buffer.baseAddress, buffer.count, 0)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { throw BenchmarkError("no head") }
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        guard let status = lines[0].split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw BenchmarkError("the server answered \(lines[0])")
        }
        let length = lines.first { $0.lowercased().hasPrefix("content-length:") }.flatMap {
            Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces))
        }
        return RawResponse(status: status, length: length ?? 0, body: Array(bytes[end.upperBound...]))
    }
}
