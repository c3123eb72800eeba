#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The config of an image (OCI image specification, config.md): what it runs on and which layers it is made of.
public struct ImageConfig: Sendable, Hashable, Codable {
    /// The filesystem of the image.
    public struct RootFilesystem: Sendable, Hashable, Codable {
        /// Always `layers`.
        public var type: String
        /// The digests of the uncompressed layers, base first.
        public var diffIDs: [Digest]

        private enum CodingKeys: String, CodingKey {
            case type
            case diffIDs = "diff_ids"
        }

        /// Makes a filesystem of uncompressed layers.
        public init(diffIDs: [Digest]) {
            type = "layers"
            self.diffIDs = diffIDs
        }

        /// Decodes a filesystem.
        ///
        /// - Throws: `DecodingError` when a diffID is not a digest.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            type = container.lenient(.type) ?? "layers"
            // Docker writes null for an image without layers.
            let isAbsent = try !container.contains(.diffIDs) || container.decodeNil(forKey: .diffIDs)
            diffIDs = isAbsent ? [] : try container.bounded(.diffIDs, limit: ImageManifest.maximumLayerCount)
        }
    }

    /// How a container of the image is started.
    public struct Execution: Sendable, Hashable, Codable {
        /// User and group.
        public var user: String?
        /// Environment, as `NAME=value`.
        public var environment: [String]?
        /// The program and its first arguments.
        public var entrypoint: [String]?
        /// Arguments, or the program where there is no entrypoint.
        public var command: [String]?
        /// The directory the program starts in.
        public var workingDirectory: String?
        /// Arbitrary metadata.
        public var labels: [String: String]?

        private enum CodingKeys: String, CodingKey {
            case user = "User"
            case environment = "Env"
            case entrypoint = "Entrypoint"
            case command = "Cmd"
            case workingDirectory = "WorkingDir"
            case labels = "Labels"
        }

        /// Makes execution parameters.
        public init(
            user: String? = nil, environment: [String]? = nil, entrypoint: [String]? = nil, command: [String]? = nil,
            workingDirectory: String? = nil, labels: [String: String]? = nil
        ) {
            self.user = user
            self.environment = environment
            self.entrypoint = entrypoint
            self.command = command
            self.workingDirectory = workingDirectory
            self.labels = labels
        }

        /// Decodes execution parameters; fields of another type are ignored.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            user = container.lenient(.user)
            environment = container.lenient(.environment)
            entrypoint = container.lenient(.entrypoint)
            command = container.lenient(.command)
            workingDirectory = container.lenient(.workingDirectory)
            labels = container.lenientStrings(.labels)
        }
    }

    /// When the image was made, RFC 3339.
    public var created: String?
    /// Who made it.
    public var author: String?
    /// The processor, as in GOARCH; empty where it was left out.
    public var architecture: String
    /// The operating system, as in GOOS; empty where it was left out.
    public var os: String
    /// The version of the operating system.
    public var osVersion: String?
    /// The variant of the processor.
    public var variant: String?
    /// How a container is started.
    public var config: Execution?
    /// The filesystem.
    public var rootfs: RootFilesystem

    private enum CodingKeys: String, CodingKey {
        case created, author, architecture, os, variant, config, rootfs
        case osVersion = "os.version"
    }

    /// Makes a config.
    public init(
        created: String? = nil, author: String? = nil, architecture: String, os: String, osVersion: String? = nil,
        variant: String? = nil, config: Execution? = nil, rootfs: RootFilesystem
    ) {
        self.created = created
        self.author = author
        self.architecture = architecture
        self.os = os
        self.osVersion = osVersion
        self.variant = variant
        self.config = config
        self.rootfs = rootfs
    }

    /// Decodes a config.
    ///
    /// - Throws: `DecodingError` when `rootfs` is missing or one of its diffIDs is not a digest.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        created = container.lenient(.created)
        author = container.lenient(.author)
        architecture = container.lenient(.architecture) ?? ""
        os = container.lenient(.os) ?? ""
        osVersion = container.lenient(.osVersion)
        variant = container.lenient(.variant)
        config = container.lenient(.config)
        rootfs = try container.decode(RootFilesystem.self, forKey: .rootfs)
    }

    /// The platform of the image.
    public var platform: Platform {
        Platform(architecture: architecture, os: os, osVersion: osVersion, variant: variant)
    }

    /// Decodes a config from JSON of at most ``Manifest/maximumSize`` bytes.
    ///
    /// - Throws: ``ManifestError``.
    public static func decode(from json: some Collection<UInt8>) throws(ManifestError) -> ImageConfig {
        try decodeJSON(ImageConfig.self, from: json)
    }
}
