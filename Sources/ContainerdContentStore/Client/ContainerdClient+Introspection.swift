#if Containerd
    import GRPCCore
    import SwiftProtobuf

    extension ContainerdClient {
        /// Asks containerd for its version.
        package func version() async throws -> ContainerdVersion {
            let client = Containerd_Services_Version_V1_Version.Client(wrapping: grpc)
            return ContainerdVersion(try await client.version(.init(), metadata: metadata(), options: unary).version)
        }

        /// Lists containerd's namespaces.
        package func namespaces() async throws -> [String] {
            let client = Containerd_Services_Namespaces_V1_Namespaces.Client(wrapping: grpc)
            return try await client.list(.init(), metadata: metadata(), options: unary).namespaces.map(\.name)
        }

        /// Asks where containerd keeps content; `nil` when it does not say.
        package func contentRoot() async throws -> String? {
            let client = Containerd_Services_Introspection_V1_Introspection.Client(wrapping: grpc)
            let response = try await client.plugins(
                .with { $0.filters = [#"type=="io.containerd.content.v1",id=="content""#] },
                metadata: metadata(), options: unary)
            return response.plugins.first { !($0.exports["root"] ?? "").isEmpty }?.exports["root"]
        }

        /// Lists the plugins of CRI, each with the reason for which containerd did not load it; empty when CRI is disabled.
        package func criPlugins() async throws -> [(name: String, failure: String?)] {
            let client = Containerd_Services_Introspection_V1_Introspection.Client(wrapping: grpc)
            let response = try await client.plugins(
                .with { $0.filters = [#"type=="io.containerd.grpc.v1",id=="cri""#, #"type=="io.containerd.cri.v1""#] },
                metadata: metadata(), options: unary)
            return response.plugins.map { ("\($0.type).\($0.id)", $0.hasInitErr ? $0.initErr.message : nil) }
        }

        /// Asks the CRI plugin for its configuration, as JSON; `nil` when it has none or there is no CRI plugin.
        package func criConfiguration() async throws -> String? {
            let client = Runtime_V1_RuntimeService.Client(wrapping: grpc)
            do {
                return try await client.status(.with { $0.verbose = true }, metadata: metadata(), options: unary)
                    .info["config"]
            } catch let error as RPCError where error.code == .unimplemented {
                return nil
            }
        }
    }
#endif
