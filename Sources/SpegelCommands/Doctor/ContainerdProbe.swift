import ContainerdContentStore
import Foundation
import NodeConfiguration

/// Asks containerd single questions on a connection of its own.
enum ContainerdProbe {
    /// The time for everything asked at once.
    private static let timeout: Duration = .seconds(3)

    /// The version, or nil when containerd does not answer.
    static func version(socket: String, namespace: String = "k8s.io") async -> String? {
        guard FileManager.default.fileExists(atPath: socket) else { return nil }
        return try? await asking(socket: socket, namespace: namespace) { "\(try await $0.version())" }
    }

    /// Whether containerd answers, and why its CRI plugin is not loaded, if that is so; nil when it does not answer.
    static func health(socket: String) async -> (version: String, criFailure: String?)? {
        guard FileManager.default.fileExists(atPath: socket) else { return nil }
        return try? await asking(socket: socket, namespace: "k8s.io") { client in
            ("\(try await client.version())", try await criFailure(client))
        }
    }

    private static func criFailure(_ client: ContainerdClient) async throws -> String? {
        try await client.criPlugins().compactMap { plugin in plugin.failure.map { "\(plugin.name): \($0)" } }.first
    }

    /// Fills in what containerd says of itself.
    static func examine(_ evidence: inout DoctorEvidence) async {
        let (socket, namespace) = (evidence.containerdSocketPath, evidence.namespace)
        guard FileManager.default.fileExists(atPath: socket) else {
            evidence.socket = .missing
            return
        }
        struct Answers: Sendable {
            var version: String
            var namespaces: [String]
            var images: Int?
            var root: String?
            var cri: String?
            var isCRIListed: Bool
            var criFailure: String?
        }
        do {
            let answers = try await asking(socket: socket, namespace: namespace) { client in
                Answers(
                    version: "\(try await client.version())", namespaces: try await client.namespaces(),
                    images: try? await client.listImages().images.count, root: try? await client.contentRoot(),
                    cri: try? await client.criConfiguration(),
                    isCRIListed: (try? await client.criPlugins().isEmpty) == false,
                    criFailure: try? await criFailure(client))
            }
            evidence.socket = .answers(version: answers.version)
            evidence.namespaces = answers.namespaces
            evidence.images = answers.images
            evidence.contentRoot = answers.root
            evidence.criPlugin = answers.isCRIListed ? (answers.criFailure.map { .denied($0) } ?? .usable) : .missing
            (evidence.runtimeConfigPath, evidence.runtimeDiscardsLayers) = runtimeSettings(answers.cri)
        } catch {
            evidence.socket = .refused("\(error)")
        }
    }

    /// What the CRI plugin says of itself; nil when it does not say how images are pulled, as since containerd 2.0, where
    /// another plugin has these settings.
    static func runtimeSettings(_ json: String?) -> (configPath: String?, discardsLayers: Bool?) {
        struct Configuration: Decodable {
            struct Registry: Decodable { var configPath: String? }
            struct Containerd: Decodable { var discardUnpackedLayers: Bool? }
            var registry: Registry?
            var containerd: Containerd?
        }
        guard let json, let read = try? JSONDecoder().decode(Configuration.self, from: Data(json.utf8)),
            let registry = read.registry
        else { return (nil, nil) }
        return (registry.configPath ?? "", read.containerd?.discardUnpackedLayers)
    }

    private static func asking<Answer: Sendable>(
        socket: String, namespace: String, _ body: @escaping @Sendable (ContainerdClient) async throws -> Answer
    ) async throws -> Answer {
        let client = try ContainerdClient(socketPath: socket, namespace: namespace, callTimeout: .seconds(2))
        return try await withThrowingTaskGroup(of: Answer?.self) { group in
            group.addTask {
                try await client.run()
                return nil
            }
            group.addTask { try await body(client) }
            group.addTask {
                try await Task.sleep(for: timeout)
                throw DoctorProbeError("no answer within \(timeout)")
            }
            defer { group.cancelAll() }
            while let answer = try await group.next() {
                if let answer { return answer }
            }
            throw DoctorProbeError("the connection ended")
        }
    }
}
