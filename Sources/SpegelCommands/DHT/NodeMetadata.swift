import AsyncHTTPClient
import Foundation
import MirrorServer
import NIOCore
import NIOHTTP1
import PeerRouting

/// What a running daemon tells about itself on its metrics port.
enum NodeMetadata {
    private struct Document: Decodable {
        struct Libp2p: Decodable { var id: String }
        var libp2p: Libp2p
    }

    /// The peer ID of the daemon whose metrics are at an address.
    ///
    /// - Throws: ``CommandFailure`` saying what to do about it.
    static func peerID(at address: ListenAddress, timeout: Duration) async throws -> PeerID {
        let url = "http://\(ListenAddress(host: address.host ?? "127.0.0.1", port: address.port))/debug/web/metadata"
        do {
            let response = try await HTTPClient.shared.execute(
                HTTPClientRequest(url: url), timeout: TimeAmount(timeout))
            guard response.status == .ok else {
                throw CommandFailure("status \(response.status.code); is '--debug-web-enabled' false there?")
            }
            let body = try await response.body.collect(upTo: 64 << 10)
            let document = try JSONDecoder().decode(Document.self, from: Data(body.readableBytesView))
            return try PeerID(parsing: document.libp2p.id)
        } catch {
            throw CommandFailure(
                "\(url): \(PeerProbe.words(error)); give the address of a running daemon with '--metrics-addr', "
                    + "or its '--data-dir' to read the identity kept there")
        }
    }
}
