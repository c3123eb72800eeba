#if Containerd
    import ContainerdContentStore
    import Logging
    import ServiceLifecycle

    /// Keeps a containerd store until shutdown, and tells what in containerd's configuration keeps mirroring from working.
    struct ContainerdStoreService: Service {
        var store: ContainerdContentStore
        var logger: Logger

        func run() async throws {
            let advice = Task { await advise() }
            try? await gracefulShutdown()
            advice.cancel()
            await store.shutdown()
        }

        /// Said once: containerd's configuration changes with a restart of containerd only, and rarely then.
        private func advise() async {
            guard (try? await store.waitUntilIndexed()) != nil else { return }
            for finding in await store.checkConfiguration() {
                var metadata: Logger.Metadata = [
                    "setting": "\(finding.setting)", "explanation": "\(finding.explanation)",
                ]
                if !finding.lines.isEmpty { metadata["lines"] = "\(finding.lines.joined(separator: "\n"))" }
                switch finding.severity {
                case .good: logger.debug("containerd is set up for mirroring", metadata: metadata)
                case .unknown: logger.info("cannot tell whether containerd is set up for mirroring", metadata: metadata)
                case .problem:
                    logger.warning(
                        "containerd is not set up for mirroring; have these lines in its config.toml",
                        metadata: metadata)
                }
            }
        }
    }
#endif
