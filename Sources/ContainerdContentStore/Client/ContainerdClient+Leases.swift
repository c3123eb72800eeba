#if Containerd
    import GRPCCore
    import SwiftProtobuf

    extension ContainerdClient {
        private var leases: Containerd_Services_Leases_V1_Leases.Client<Transport> { .init(wrapping: grpc) }

        /// Creates a lease, which keeps what is written under it from garbage collection.
        ///
        /// - Parameters:
        ///   - id: the lease's name; must be unique.
        ///   - expiry: when containerd may forget it, in RFC 3339, should nobody delete it.
        package func createLease(_ id: String, expiry: String) async throws {
            let request = Containerd_Services_Leases_V1_CreateRequest.with {
                $0.id = id
                $0.labels = ["containerd.io/gc.expire": expiry]
            }
            _ = try await leases.create(request, metadata: metadata(), options: unary)
        }

        /// Deletes a lease, if it exists.
        package func deleteLease(_ id: String) async throws {
            _ = try await found {
                try await leases.delete(.with { $0.id = id }, metadata: metadata(), options: unary)
            }
        }

        /// Lists the names of the namespace's leases.
        package func listLeases() async throws -> [String] {
            try await leases.list(.init(), metadata: metadata(), options: unary).leases.map(\.id)
        }
    }
#endif
