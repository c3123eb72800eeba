#if Containerd
    /// Something about containerd's configuration that an operator should know.
    public struct ContainerdFinding: Sendable, Hashable {
        /// How much it matters.
        public enum Severity: String, Sendable, Hashable {
            /// As it should be.
            case good
            /// It could not be found out.
            case unknown
            /// Mirroring does not work, or not fully, until it is changed.
            case problem
        }

        /// How much it matters.
        public var severity: Severity
        /// The setting, such as `discard_unpacked_layers`.
        public var setting: String
        /// What is so, what follows, and where it was read.
        public var explanation: String
        /// The exact lines to have in containerd's `config.toml`; empty when nothing must be changed. containerd must be
        /// restarted afterwards.
        public var lines: [String]

        /// Creates a finding.
        public init(severity: Severity, setting: String, explanation: String, lines: [String] = []) {
            self.severity = severity
            self.setting = setting
            self.explanation = explanation
            self.lines = lines
        }
    }
#endif
