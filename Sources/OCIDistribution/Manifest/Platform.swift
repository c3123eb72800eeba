/// The platform an image runs on (OCI image specification, image-index.md, "platform").
public struct Platform: Sendable, Hashable, Codable {
    /// The processor, as in GOARCH: `amd64`, `arm64` …
    public var architecture: String
    /// The operating system, as in GOOS: `linux`, `windows` …
    public var os: String
    /// The version of the operating system, where it matters.
    public var osVersion: String?
    /// Features the operating system must have.
    public var osFeatures: [String]?
    /// The variant of the processor, such as `v7` or `v8`.
    public var variant: String?

    /// Makes a platform.
    public init(
        architecture: String, os: String, osVersion: String? = nil, osFeatures: [String]? = nil, variant: String? = nil
    ) {
        self.architecture = architecture
        self.os = os
        self.osVersion = osVersion
        self.osFeatures = osFeatures
        self.variant = variant
    }

    private enum CodingKeys: String, CodingKey {
        case architecture, os, variant
        case osVersion = "os.version"
        case osFeatures = "os.features"
    }

    /// Decodes a platform; missing fields are empty.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        architecture = container.lenient(.architecture) ?? ""
        os = container.lenient(.os) ?? ""
        osVersion = container.lenient(.osVersion)
        osFeatures = container.lenient(.osFeatures)
        variant = container.lenient(.variant)
    }
}

extension Platform: CustomStringConvertible {
    /// `os/architecture[/variant]`, as tools write it.
    public var description: String {
        variant.map { "\(os)/\(architecture)/\($0)" } ?? "\(os)/\(architecture)"
    }
}
