#if Containerd
    import ContentStore
    import GRPCCore

    extension ContentStoreError {
        /// What a failed call to containerd means for a store.
        init(containerd error: any Error) {
            if let error = error as? ContentStoreError {
                self = error
                return
            }
            guard let error = error as? RPCError else {
                self = .unavailable(String(describing: error))
                return
            }
            // Errors of the file system reach a client as text only. Bytes are compared, because Foundation's function for texts brings
            // 34 MiB of ICU's data into a program that is linked statically.
            func says(_ text: String) -> Bool { error.message.utf8.firstRange(of: text.utf8) != nil }
            if says("no space left on device") || says("disk quota exceeded") {
                self = .noSpace("containerd: \(error.message)")
            } else if says("read-only file system") {
                self = .readOnly("containerd: \(error.message)")
            } else if error.code == .permissionDenied || says("permission denied") {
                self = .permissionDenied("containerd: \(error.message)")
            } else {
                self = .unavailable("containerd: \(error.code): \(error.message)")
            }
        }
    }

    /// Runs a call and turns its failure into a store's error.
    func asStoreError<T>(_ call: () async throws -> T) async throws -> T {
        do { return try await call() } catch let error as CancellationError { throw error } catch {
            throw ContentStoreError(containerd: error)
        }
    }
#endif
