/// Why a registry configuration was not written. Nothing was changed.
package enum HostsConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No mirror was named.
    case noMirrorTargets
    /// A `hosts.toml` to be prepended to is not TOML.
    case malformed(path: String, reason: TOMLError)
    /// The directory, or one above it, cannot be read or written; names the path and the system's reason.
    case file(path: String, reason: String)
    /// More files than a registry configuration can have.
    case tooManyFiles(path: String, limit: Int)

    package var description: String {
        switch self {
        case .noMirrorTargets: "no mirror is named: give --mirror-targets at least one, such as http://127.0.0.1:30020"
        case .malformed(let path, let reason):
            "\(path) is not valid TOML (\(reason)); repair or remove it; nothing was changed"
        case .file(let path, let reason): "\(path): \(reason)"
        case .tooManyFiles(let path, let limit):
            "\(path) holds more than \(limit) files, so it is no registry configuration; check the path"
        }
    }
}

/// The registry configuration of a node: which registries are asked for through which mirrors.
package struct MirrorConfigurationPlan: Sendable {
    /// The registries to mirror; the wildcard, or none, for all.
    package var registries: [RegistryURL]
    /// The mirrors, in the order in which they are asked.
    package var targets: [RegistryURL]
    /// Whether mirrors resolve tags too.
    package var resolvesTags = true
    /// Whether the hosts that an operator configured follow the mirrors.
    package var prependsExisting = false
    /// The value of the `Authorization` header sent to mirrors.
    package var authorization: String?

    package init(
        registries: [RegistryURL], targets: [RegistryURL], resolvesTags: Bool = true, prependsExisting: Bool = false,
        authorization: String? = nil
    ) {
        self.registries = registries
        self.targets = targets
        self.resolvesTags = resolvesTags
        self.prependsExisting = prependsExisting
        self.authorization = authorization
    }

    /// The directory in which the operator's files are kept while mirrors are configured.
    package static let backupName = "_backup"

    // MARK: Planning

    /// The tree that configures the mirrors.
    ///
    /// - Parameter old: What the configuration directory holds.
    /// - Returns: The tree, and what is worth saying about it.
    /// - Throws: ``HostsConfigurationError``.
    package func configured(_ old: FileTree) throws(HostsConfigurationError) -> (tree: FileTree, notes: [String]) {
        guard !targets.isEmpty else { throw .noMirrorTargets }
        let (backup, notes) = Self.operatorFiles(of: old)
        var new = FileTree([Self.backupName: .directory(backup)], mode: old.mode)
        var registries = registries
        if registries.isEmpty { registries = [.wildcard] }
        for registry in registries {
            var directory = FileTree()
            var existing: String?
            if prependsExisting, let former = backup.directory(registry.host),
                let hosts = former.file("hosts.toml")?.bytes
            {
                do {
                    existing = try HostsFile.existingHosts(in: hosts)
                } catch {
                    throw .malformed(path: "\(registry.host)/hosts.toml", reason: error)
                }
                if existing != nil { directory = former.copied() }
            }
            let file = HostsFile(
                server: registry.upstream, targets: targets.map(\.description), resolvesTags: resolvesTags,
                authorization: authorization)
            directory.entries["hosts.toml"] = .file(
                FileTree.File(
                    bytes: Array(file.text(followedBy: existing).utf8), mode: authorization == nil ? 0o644 : 0o600))
            new.entries[registry.host] = .directory(directory)
        }
        return (new, notes)
    }

    /// The tree without the mirrors: what the operator had, and has added since.
    ///
    /// - Returns: Nil when nothing has been configured.
    package static func cleanedUp(_ old: FileTree) -> (tree: FileTree, notes: [String])? {
        guard old.directory(backupName) != nil else { return nil }
        var (tree, notes) = operatorFiles(of: old)
        tree.mode = old.mode
        return (tree, notes)
    }

    /// The files that are the operator's: those of the backup, and what was put beside ours since it was made.
    private static func operatorFiles(of old: FileTree) -> (FileTree, notes: [String]) {
        guard var backup = old.directory(backupName) else {
            return (FileTree(old.entries, mode: nil), [])
        }
        backup.mode = nil
        var added = FileTree()
        var mirrors: Set<String> = []
        for name in old.entries.keys where name != backupName {
            guard let bytes = old.directory(name)?.file("hosts.toml")?.bytes else { continue }
            mirrors.formUnion(HostsFile.mirrors(in: bytes, backup: backup.directory(name)?.file("hosts.toml")?.bytes))
        }
        for (name, node) in old.entries where name != backupName {
            switch node {
            case .directory(var directory):
                directory.removeMirrors(mirrors, backup: backup.directory(name)?.file("hosts.toml")?.bytes)
                let rest = foreign(in: directory, backup: backup.directory(name), isRegistry: true)
                // A directory in which everything is ours goes; an empty one was nobody's configuration.
                if !rest.entries.isEmpty { added.entries[name] = .directory(rest) }
            default:
                added.entries[name] = node
            }
        }
        var notes = added.entries.keys.sorted().map { "\($0) was added beside the mirror configuration and is kept" }
        notes += backup.merge(added).map { "\($0) holds what differs from the copy made at first" }
        return (backup, notes)
    }

    /// What of a registry's directory neither this program wrote nor the backup has.
    private static func foreign(in directory: FileTree, backup: FileTree?, isRegistry: Bool) -> FileTree {
        var rest = FileTree(mode: directory.mode)
        for (name, node) in directory.entries {
            if isRegistry, name == "hosts.toml", case .file(let file) = node, let bytes = file.bytes,
                HostsFile.isGenerated(bytes, backup: backup?.file("hosts.toml")?.bytes)
            {
                continue
            }
            if let former = backup?.entries[name] {
                if former.hasContent(of: node) { continue }
                if case .directory(let inner) = node, let innerBackup = backup?.directory(name) {
                    let innerRest = foreign(in: inner, backup: innerBackup, isRegistry: false)
                    if !innerRest.entries.isEmpty { rest.entries[name] = .directory(innerRest) }
                    continue
                }
            }
            rest.entries[name] = node
        }
        return rest
    }
}

extension RegistryURL {
    /// The `server` of the registry's file; nil for the wildcard.
    package var upstream: String? {
        switch self {
        case .wildcard: nil
        case .registry("https", "docker.io"): "https://registry-1.docker.io"
        case .registry: description
        }
    }
}

extension FileTree {
    /// Takes the mirrors out of a registry's generated `hosts.toml` that an operator has edited: what is kept of it must not
    /// bring a mirror back.
    fileprivate mutating func removeMirrors(_ mirrors: Set<String>, backup: [UInt8]?) {
        guard case .file(let file)? = entries["hosts.toml"], let bytes = file.bytes,
            !HostsFile.isGenerated(bytes, backup: backup), bytes != backup
        else { return }
        let rest = HostsFile.withoutMirrors(bytes, mirrors: mirrors, backup: backup)
        guard rest != bytes else { return }
        entries["hosts.toml"] = rest.map { .file(File(bytes: $0, mode: file.mode)) }
    }

    /// The same files as new ones, so that a change of one does not change the other.
    func copied() -> FileTree {
        var result = self
        for (name, node) in entries {
            switch node {
            case .file(let file) where file.bytes != nil:
                result.entries[name] = .file(File(bytes: file.bytes, mode: file.mode))
            case .directory(let tree):
                result.entries[name] = .directory(tree.copied())
            default:
                break
            }
        }
        return result
    }
}
