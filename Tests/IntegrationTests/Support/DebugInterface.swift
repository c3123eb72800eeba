import Foundation
import MirrorServer
import TestSupport

/// What a daemon on a loopback address of its own says of itself, on the port of its metrics.
enum DebugInterface {
    /// The port of the metrics, unless a test wants another.
    static let port = 9090

    /// A document under `/debug/`.
    static func document<Document: Decodable>(_ name: String, of address: String, port: Int = port) async throws
        -> Document
    {
        let response = try await RawConnection(address, port).request("GET", "/debug/\(name)")
        guard response.status == 200 else { throw HarnessFailure("/debug/\(name): \(response.status)") }
        return try JSONDecoder().decode(Document.self, from: Data(response.body))
    }

    /// The sum of a counter over its labels.
    static func counter(_ name: String, of address: String, port: Int = port) async throws -> Int {
        let text = try await RawConnection(address, port).request("GET", "/metrics").text
        let values = text.split(separator: "\n").compactMap { line -> Double? in
            guard line.hasPrefix(name), let next = line.dropFirst(name.count).first, next == " " || next == "{" else {
                return nil
            }
            return line.split(separator: " ").last.flatMap { Double($0) }
        }
        guard !values.isEmpty else { throw HarnessFailure("no counter \(name)") }
        return Int(values.reduce(0, +))
    }
}
