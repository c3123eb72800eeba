import ContentStoreConformance
import Foundation

/// The registry port of a hostile machine.
final class HostileContent: Sendable {
    private let attack: Attack
    private let layouts: [String]
    /// An index of its own that it gives for every tag, and what belongs to it, by digest.
    private let index: SampleContent.Blob
    private let blobs: [String: SampleContent.Blob]

    /// - Parameter layouts: a directory with those of the honest nodes.
    init(_ attack: Attack, layouts: String) {
        self.attack = attack
        let names = (try? FileManager.default.contentsOfDirectory(atPath: layouts)) ?? []
        self.layouts = names.map { "\(layouts)/\($0)" }
        var source = SampleContent(seed: 666)
        let layers = [source.layer(size: 4096)]
        let image = source.image(layers: layers)
        index = SampleContent.index([image])
        blobs = Dictionary(uniqueKeysWithValues: ([index] + image.blobs).map { ("\($0.digest)", $0) })
    }

    /// Whether nothing listens.
    var isEmpty: Bool { ![.absent, .impostor, .liar, .oversize, .trickle, .tags].contains(attack) }
    /// The digests of its own content.
    var ownKeys: [String] { Array(blobs.keys) }

    func serve(host: String, port: Int) throws {
        let listener = try ListeningSocket(host: host, port: port)
        Thread.detachNewThread { [self] in
            while let client = listener.accept() {
                Thread.detachNewThread { [self] in try? answer(client) }
            }
        }
    }

    private func answer(_ client: ClientSocket) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        while let request = try HTTPRelay.head(of: client, buffer) {
            let words = request.text.prefix { !$0.isNewline }.split(separator: " ")
            guard words.count == 3 else { return }
            let path = words[1].prefix { $0 != "?" }
            let reference = String(path.split(separator: "/").last ?? "")
            let isManifest = path.contains("/manifests/")
            guard let (digest, body) = content(reference) else {
                try client.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            }
            let length = attack == .oversize ? 999_999_999_999_999_999 : body.count
            try client.send(
                "HTTP/1.1 200 OK\r\nContent-Length: \(length)\r\nDocker-Content-Digest: \(digest)\r\n"
                    + "Content-Type: \(isManifest ? Self.mediaType(body) : "application/octet-stream")\r\n\r\n")
            if words[0] == "HEAD" { continue }
            try send(body, to: client)
        }
    }

    private func content(_ reference: String) -> (digest: String, body: [UInt8])? {
        switch attack {
        case .absent, .impostor: return nil
        case .tags:
            if let own = blobs[reference] { return (reference, own.bytes) }
            return reference.hasPrefix("sha256:") ? nil : ("\(index.digest)", index.bytes)
        default:
            guard reference.hasPrefix("sha256:") else { return nil }
            for layout in layouts {
                if let data = FileManager.default.contents(atPath: "\(layout)/blobs/sha256/\(reference.dropFirst(7))") {
                    return (reference, Array(data))
                }
            }
            return nil
        }
    }

    private func send(_ body: [UInt8], to client: ClientSocket) throws {
        switch attack {
        case .liar:
            var body = body
            if !body.isEmpty { body[body.count / 2] ^= 0xff }
            try body.withUnsafeBytes { try client.send($0) }
        case .oversize:
            let junk = [UInt8](repeating: 0x20, count: 64 << 10)
            while true { try junk.withUnsafeBytes { try client.send($0) } }
        case .trickle:
            for start in stride(from: 0, to: body.count, by: 400) {
                try body[start..<min(body.count, start + 400)].withUnsafeBytes { try client.send($0) }
                usleep(100_000)
            }
        default: try body.withUnsafeBytes { try client.send($0) }
        }
    }

    private static func mediaType(_ body: [UInt8]) -> String {
        let object = try? JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]
        return object?["mediaType"] as? String ?? "application/vnd.oci.image.manifest.v1+json"
    }
}
