#if Containerd
    import Foundation

    /// Finds out whether containerd asks registries through `config_path` and keeps the layers it unpacked.
    enum ContainerdConfigurationCheck {
        /// What is known of the two settings.
        struct Settings: Sendable, Hashable {
            var configPath: String?
            var discardsUnpackedLayers: Bool?
            /// Where it was read.
            var origin: String
        }

        /// The plugin whose settings they are, up to containerd 1.7 and since 2.0.
        private static let plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"]

        static func run(client: ContainerdClient?, configurationFile: String) async -> [ContainerdFinding] {
            var settings: [Settings] = []
            var version: ContainerdVersion?
            if let client {
                version = try? await client.version()
                if let json = try? await client.criConfiguration(), let read = settingsOfRuntime(json) {
                    settings.append(read)
                }
            }
            if let read = settingsOfFile(configurationFile) { settings.append(read) }
            return findings(settings, isVersion2: version.map { !$0.isOlder(than: 2, 0) }, file: configurationFile)
        }

        /// Reads what the CRI plugin says of itself; `nil` when it does not say how images are pulled, as since containerd
        /// 2.0, where another plugin has these settings and tells nobody.
        static func settingsOfRuntime(_ json: String) -> Settings? {
            struct Configuration: Decodable {
                struct Registry: Decodable { var configPath: String? }
                struct Containerd: Decodable { var discardUnpackedLayers: Bool? }
                var registry: Registry?
                var containerd: Containerd?
            }
            guard let read = try? JSONDecoder().decode(Configuration.self, from: Data(json.utf8)),
                let registry = read.registry
            else { return nil }
            return Settings(
                configPath: registry.configPath, discardsUnpackedLayers: read.containerd?.discardUnpackedLayers,
                origin: "containerd itself")
        }

        /// Reads a configuration file; `nil` when it cannot be read.
        static func settingsOfFile(_ path: String) -> Settings? {
            guard let data = FileManager.default.contents(atPath: path), data.count <= TOMLSettings.sizeLimit else {
                return nil
            }
            let toml = TOMLSettings(String(decoding: data, as: UTF8.self))
            var result = Settings(origin: path)
            for plugin in plugins {
                result.configPath = result.configPath ?? toml["plugins", plugin, "registry", "config_path"]
                let value =
                    toml["plugins", plugin, "containerd", "discard_unpacked_layers"]
                    ?? toml["plugins", plugin, "discard_unpacked_layers"]
                result.discardsUnpackedLayers = result.discardsUnpackedLayers ?? value.map { $0 == "true" }
            }
            return result
        }

        /// Says what follows; what containerd says of itself comes first in `settings` and counts more than its file.
        static func findings(_ settings: [Settings], isVersion2: Bool?, file: String) -> [ContainerdFinding] {
            let isVersion2 = isVersion2 ?? false
            let plugin = isVersion2 ? plugins[1] : plugins[0]
            let layersTable = isVersion2 ? "[plugins.'\(plugin)']" : "[plugins.\"\(plugin)\".containerd]"
            let registryTable = isVersion2 ? "[plugins.'\(plugin)'.registry]" : "[plugins.\"\(plugin)\".registry]"
            let layersLines = [layersTable, "  discard_unpacked_layers = false"]
            let registryLines = [registryTable, "  config_path = \"/etc/containerd/certs.d\""]
            guard !settings.isEmpty else {
                let reason = "containerd does not tell its configuration and \(file) cannot be read from here"
                return [
                    ContainerdFinding(
                        severity: .unknown, setting: "discard_unpacked_layers", explanation: reason, lines: layersLines),
                    ContainerdFinding(
                        severity: .unknown, setting: "config_path", explanation: reason, lines: registryLines),
                ]
            }
            return [
                layers(settings, lines: layersLines),
                registry(settings, lines: registryLines),
            ]
        }

        private static func layers(_ settings: [Settings], lines: [String]) -> ContainerdFinding {
            let setting = "discard_unpacked_layers"
            // containerd's own default is to keep them.
            let known = settings.first { $0.discardsUnpackedLayers != nil }
            guard let known, known.discardsUnpackedLayers == true else {
                return ContainerdFinding(
                    severity: .good, setting: setting,
                    explanation:
                        "layers are kept after unpacking, according to \(known?.origin ?? "containerd's default")")
            }
            return ContainerdFinding(
                severity: .problem, setting: setting,
                explanation: "\(known.origin) says that layers are thrown away once they are unpacked, so this node has"
                    + " none to give to others; set it to false and restart containerd",
                lines: lines)
        }

        private static func registry(_ settings: [Settings], lines: [String]) -> ContainerdFinding {
            let setting = "config_path"
            if let known = settings.first(where: { !($0.configPath ?? "").isEmpty }) {
                return ContainerdFinding(
                    severity: .good, setting: setting,
                    explanation: "registries are configured in \(known.configPath ?? ""), according to \(known.origin)")
            }
            let origins = settings.map(\.origin).joined(separator: " and ")
            return ContainerdFinding(
                severity: .problem, setting: setting,
                explanation:
                    "\(origins) has no config_path for registries, so containerd never asks this mirror; set it and"
                    + " restart containerd",
                lines: lines)
        }
    }
#endif
