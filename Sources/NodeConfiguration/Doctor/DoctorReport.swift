import Foundation

/// One thing that is checked on a node.
package struct DoctorCheck: Hashable, Sendable {
    /// A short name that stays, for programs and documents.
    package var id: String
    /// What is checked, in a few words.
    package var title: String
    /// What happens when it is not so.
    package var consequence: String
}

/// The outcome of one check.
package struct DoctorFinding: Hashable, Sendable, Codable {
    /// How a check ended, from best to worst.
    package enum Result: String, Hashable, Sendable, Codable, Comparable, CaseIterable {
        /// As it should be.
        case ok
        /// Does not apply to this node, or to what was asked.
        case skipped
        /// Could not be found out.
        case unknown
        /// Works, but not as well as it could, or not for long.
        case warning
        /// Mirroring does not work, or not fully.
        case failure

        package static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }

        private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    }

    /// The check's ``DoctorCheck/id``.
    package var check: String
    package var result: Result
    /// What was seen, and where.
    package var evidence: String
    /// What to do about it, as exactly as can be; nil when nothing has to be done.
    package var fix: String?

    package init(_ check: DoctorCheck, _ result: Result, _ evidence: String, fix: String? = nil) {
        self.check = check.id
        self.result = result
        self.evidence = evidence
        self.fix = fix
    }
}

/// What was found out about a node. Nil stands for what was not looked at.
package struct DoctorEvidence: Sendable {
    /// The outcome of trying to use a directory or file.
    package enum Access: Hashable, Sendable {
        case usable
        case missing
        case denied(String)
    }

    /// containerd on its socket.
    package enum Socket: Hashable, Sendable {
        case missing
        case refused(String)
        case answers(version: String)
    }

    /// One directory of the registry configuration.
    package struct HostsEntry: Hashable, Sendable {
        /// The directory's name.
        package var name: String
        /// The file's content; nil when there is no `hosts.toml`.
        package var file: [UInt8]?
        /// Why the file cannot be read.
        package var problem: String?

        package init(name: String, file: [UInt8]?, problem: String? = nil) {
            self.name = name
            self.file = file
            self.problem = problem
        }
    }

    /// An answer to `GET /v2/` at a mirror.
    package enum MirrorAnswer: Hashable, Sendable {
        case status(Int)
        case failed(String)
    }

    /// The daemon, by its status page.
    package struct Daemon: Hashable, Sendable {
        package var isReady: Bool
        package var reason: String?
        package var peerID: String?
        package var peers: Int
        package var advertisedKeys: Int

        package init(isReady: Bool, reason: String?, peerID: String?, peers: Int, advertisedKeys: Int) {
            self.isReady = isReady
            self.reason = reason
            self.peerID = peerID
            self.peers = peers
            self.advertisedKeys = advertisedKeys
        }
    }

    /// A blob fetched from a peer.
    package enum Fetch: Hashable, Sendable {
        case verified(digest: String, source: String, bytes: Int)
        case failed(digest: String, reason: String)
        case nothingShared
    }

    package var containerdSocketPath = "/run/containerd/containerd.sock"
    package var usesContainerd = true
    package var socket: Socket?
    package var namespace = "k8s.io"
    package var namespaces: [String]?
    package var images: Int?
    package var contentPath = ""
    /// Where containerd says that it keeps content.
    package var contentRoot: String?
    package var contentAccess: Access?
    package var ingestAccess: Access?
    package var configurationFile = "/etc/containerd/config.toml"
    package var configuration: Result<ContainerdConfigurationFiles, ContainerdConfigurationError>?
    /// The settings that containerd 1.x tells by itself.
    package var runtimeConfigPath: String?
    package var runtimeDiscardsLayers: Bool?
    /// Whether containerd's CRI plugin is loaded; missing when it is disabled.
    package var criPlugin: Access?
    package var registryDirectory = "/etc/containerd/certs.d"
    package var registryDirectoryAccess: Access?
    package var hosts: [HostsEntry]?
    /// The registries that shall be mirrored; the wildcard, or none, for all.
    package var registries: [RegistryURL] = []
    /// The answers of the first host of each file.
    package var mirrorAnswers: [String: MirrorAnswer] = [:]
    /// The `Authorization` value of the mounted secret; nil when there is none.
    package var authorization: String?
    package var metricsAddress = ""
    package var daemon: Result<Daemon, DoctorProbeError>?
    /// Whether TCP connections to the registry and router ports are accepted, by name.
    package var ports: [String: MirrorAnswer]?
    package var bootstrapName: String?
    package var bootstrapAddresses: Result<[String], DoctorProbeError>?
    /// The key that was looked up at a peer, and whether this node was named.
    package var ownKey: (key: String, isFound: Bool, reason: String?)?
    package var fetch: Fetch?
    /// Seconds by which peers' clocks are ahead of this one's, by address.
    package var clockOffsets: [String: Double]?
    package var openFiles: UInt64?
    package var inotifyWatches: UInt64?
    package var inotifyInstances: UInt64?
    package var dataDirectory: String?
    package var dataDirectoryAccess: Access?
    package var keyFileMode: UInt32?

    package init() {}

    /// Takes over what another look found out about containerd and this machine's files.
    package mutating func merge(containerdAndFiles other: DoctorEvidence) {
        socket = other.socket
        namespaces = other.namespaces
        images = other.images
        contentPath = other.contentPath
        contentRoot = other.contentRoot
        contentAccess = other.contentAccess
        ingestAccess = other.ingestAccess
        configuration = other.configuration
        runtimeConfigPath = other.runtimeConfigPath
        runtimeDiscardsLayers = other.runtimeDiscardsLayers
        criPlugin = other.criPlugin
        registryDirectoryAccess = other.registryDirectoryAccess
        hosts = other.hosts
        openFiles = other.openFiles
        inotifyWatches = other.inotifyWatches
        inotifyInstances = other.inotifyInstances
        dataDirectoryAccess = other.dataDirectoryAccess
        keyFileMode = other.keyFileMode
    }
}

/// Why something could not be asked.
package struct DoctorProbeError: Error, Hashable, Sendable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// All findings about a node.
package struct DoctorReport: Sendable {
    package var findings: [DoctorFinding]

    package init(_ findings: [DoctorFinding]) {
        self.findings = findings
    }

    package init(_ evidence: DoctorEvidence) {
        findings = Doctor.examine(evidence)
    }

    /// The worst result.
    package var worst: DoctorFinding.Result { findings.map(\.result).max() ?? .ok }

    /// The exit status: 0 when nothing has to be done, 1 for a failure, 2 for a warning or something that is not known.
    package var exitStatus: Int32 {
        switch worst {
        case .ok, .skipped: 0
        case .failure: 1
        case .unknown, .warning: 2
        }
    }

    /// A JSON object with `worst` and `findings`.
    package func json() throws -> String {
        struct Document: Encodable {
            var worst: DoctorFinding.Result
            var findings: [DoctorFinding]
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(Document(worst: worst, findings: findings)), as: UTF8.self)
    }
}
