import AsyncHTTPClient
import Logging
import NIOCore
import ServiceLifecycle

/// Waits for the mirror, removes the taint, and then stays: a container that ended would be started again.
///
/// Once the taint is gone it is not looked for again, because every node would ask the API server for ever.
struct TaintRemover: Service {
    let api: KubernetesAPI
    let node: String
    let key: String
    /// The URL that answers 200 once the mirror is ready.
    let probe: String
    let interval: Duration
    let logger: Logger

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            while try await !attempt() { try await Task.sleep(for: interval) }
        }
        try? await gracefulShutdown()
    }

    /// True once no such taint is left.
    private func attempt() async throws -> Bool {
        guard await isReady() else { return false }
        do {
            // The same key may be there with several effects. Going backwards, the places of the others stay.
            let taints = try await api.taints(of: node)
            for (index, taint) in taints.enumerated().reversed() where taint["key"] == key {
                try await api.remove(taint, at: index, of: node)
                logger.info(
                    "taint removed",
                    metadata: ["node": "\(node)", "key": "\(key)", "effect": "\(taint["effect"] ?? "")"])
            }
            return true
        } catch {
            try Task.checkCancellation()
            logger.warning("cannot remove the taint, trying again", metadata: ["node": "\(node)", "error": "\(error)"])
            return false
        }
    }

    private func isReady() async -> Bool {
        let response = try? await HTTPClient.shared.execute(HTTPClientRequest(url: probe), timeout: .seconds(2))
        return response?.status == .ok
    }
}
