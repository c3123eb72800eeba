#if Containerd
    /// A version of containerd, as in `1.6.20~ds1` or `v2.1.0-rc.1`.
    package struct ContainerdVersion: Sendable, Hashable, CustomStringConvertible {
        /// The text that containerd gave.
        package let description: String
        /// Major and minor number; `nil` when the text does not begin with them, as in a development build.
        package let numbers: (major: Int, minor: Int)?

        /// Reads a version.
        package init(_ text: String) {
            description = text
            let parts = text.drop { $0 == "v" }.split(separator: ".", maxSplits: 2)
                .map { $0.prefix { $0.isASCII && $0.isNumber } }
            if parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1]) {
                numbers = (major, minor)
            } else {
                numbers = nil
            }
        }

        /// Whether this is known to be older than a version; unknown versions are not.
        package func isOlder(than major: Int, _ minor: Int) -> Bool {
            guard let numbers else { return false }
            return (numbers.major, numbers.minor) < (major, minor)
        }

        /// The oldest version that is supported is 1.6.
        package var isSupported: Bool { !isOlder(than: 1, 6) }

        /// Whether content that is committed is told by an event, as since 2.1.
        package var tellsContentCreation: Bool { numbers != nil && !isOlder(than: 2, 1) }

        /// Whether two versions are the same text.
        package static func == (a: ContainerdVersion, b: ContainerdVersion) -> Bool { a.description == b.description }

        /// Hashes the text.
        package func hash(into hasher: inout Hasher) { hasher.combine(description) }
    }
#endif
