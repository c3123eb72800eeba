import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import NodeConfiguration

/// The little of the Kubernetes API that is needed, with the credentials of the pod's service account.
struct KubernetesAPI: Sendable {
    /// A refusal, or an answer that is none.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// A node's taint. Fields that are not known here are kept, because a patch has to repeat them.
    typealias Taint = [String: String]

    /// The API's URL, without a path.
    let server: String
    /// The directory with the files `token` and `ca.crt`. The token changes while the pod runs, so it is read each time.
    let serviceAccountPath: String

    private static let timeout = TimeAmount.seconds(10)
    /// A node object lists its images; the API server limits objects to 1.5 MiB.
    private static let bodyLimit = 4 << 20

    /// The API of the cluster whose pod this is, as Kubernetes says in the environment.
    static func serverOfThisPod(_ environment: [String: String]) -> String {
        guard let host = environment["KUBERNETES_SERVICE_HOST"], let port = environment["KUBERNETES_SERVICE_PORT"]
        else {
            return "https://kubernetes.default.svc"
        }
        return host.contains(":") ? "https://[\(host)]:\(port)" : "https://\(host):\(port)"
    }

    private struct Node: Decodable {
        struct Spec: Decodable { var taints: [Taint]? }
        var spec: Spec?
    }

    private struct Operation: Encodable {
        var op: String
        var path: String
        var value: Taint?
    }

    /// The taints of a node, in the order that patches refer to.
    func taints(of node: String) async throws -> [Taint] {
        let body = try await send(.GET, "/api/v1/nodes/\(node)")
        return try JSONDecoder().decode(Node.self, from: body).spec?.taints ?? []
    }

    /// Removes one taint, unless another is at its place by now.
    ///
    /// - Throws: ``Failure`` when the list has changed since it was read, among other reasons.
    func remove(_ taint: Taint, at index: Int, of node: String) async throws {
        let path = "/spec/taints/\(index)"
        let patch = [
            Operation(op: "test", path: path, value: taint), Operation(op: "remove", path: path, value: nil),
        ]
        _ = try await send(
            .PATCH, "/api/v1/nodes/\(node)", body: try JSONEncoder().encode(patch), type: "application/json-patch+json")
    }

    private func send(_ method: HTTPMethod, _ path: String, body: Data? = nil, type: String? = nil) async throws -> Data
    {
        let token = try String(contentsOfFile: "\(serviceAccountPath)/token", encoding: .utf8).filter {
            !$0.isWhitespace
        }
        var request = HTTPClientRequest(url: server + path)
        request.method = method
        request.headers.add(name: "Authorization", value: "Bearer \(token)")
        request.headers.add(name: "Accept", value: "application/json")
        if let type { request.headers.add(name: "Content-Type", value: type) }
        if let body { request.body = .bytes(ByteBuffer(bytes: body)) }
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .file("\(serviceAccountPath)/ca.crt")
        // One client a request: there are two in the life of a pod, and the certificates may change between them.
        let client = HTTPClient(
            eventLoopGroupProvider: .singleton, configuration: HTTPClient.Configuration(tlsConfiguration: tls))
        let result = await Result { [request] in
            let response = try await client.execute(request, timeout: Self.timeout)
            let bytes = try await response.body.collect(upTo: Self.bodyLimit)
            guard response.status == .ok else {
                throw Failure(description: "\(method) \(path): status \(response.status.code)")
            }
            return Data(bytes.readableBytesView)
        }
        try? await client.shutdown()
        return try result.get()
    }
}

extension Result where Failure == any Error {
    fileprivate init(catching body: () async throws -> Success) async {
        do {
            self = .success(try await body())
        } catch {
            self = .failure(error)
        }
    }
}
