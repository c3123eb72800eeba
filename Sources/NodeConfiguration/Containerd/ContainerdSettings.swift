import Foundation

/// The version of containerd, as far as its reading of the configuration depends on it.
package struct ContainerdRelease: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var major: Int
    package var minor: Int

    package init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// Finds the version in a text such as `v2.1.4` or `containerd github.com/containerd/containerd 1.6.20~ds1 …`; nil when
    /// there is none.
    package init?(in text: String) {
        for word in text.split(whereSeparator: { $0 == " " || $0 == "\n" || $0 == "," }) {
            let digits = word.hasPrefix("v") ? word.dropFirst() : word
            let parts = digits.split(separator: ".", maxSplits: 2)
            guard parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1].prefix { $0.isNumber }),
                !parts[1].isEmpty, (1...99).contains(major)
            else { continue }
            self.init(major: major, minor: minor)
            return
        }
        return nil
    }

    package static func < (left: Self, right: Self) -> Bool { (left.major, left.minor) < (right.major, right.minor) }
    package var description: String { "\(major).\(minor)" }
}

/// Why containerd's configuration could not be read or changed. Nothing was changed.
package enum ContainerdConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A file cannot be read or written.
    case file(path: String, reason: String)
    /// A file is not the TOML that containerd reads.
    case malformed(path: String, reason: TOMLError)
    /// A file that another one imports does not exist; containerd does not start then.
    case missingImport(path: String, importedBy: String)
    /// More files than a configuration can have.
    case tooManyFiles(limit: Int)
    /// A version of the configuration's form that this program does not know.
    case unknownVersion(path: String, version: Int64)
    /// A setting would not be in force after the change.
    case notInForce(setting: String, file: String)
    /// containerd itself refuses the changed configuration.
    case refused(reason: String)
    /// A table with which the CRI plugin does not load once `config_path` is set, so that no pod would start any more.
    case conflictingTable(table: String, path: String, line: Int)

    package var description: String {
        switch self {
        case .file(let path, let reason): "\(path): \(reason)"
        case .malformed(let path, let reason):
            "\(path) is not valid TOML (\(reason)); repair it first; nothing was changed"
        case .missingImport(let path, let importer):
            "\(importer) imports \(path), which does not exist; create it or remove the import; nothing was changed"
        case .tooManyFiles(let limit): "the configuration imports more than \(limit) files; nothing was changed"
        case .unknownVersion(let path, let version):
            "\(path) has version \(version); versions 1 to 4 are known; nothing was changed"
        case .notInForce(let setting, let file):
            "\(setting) cannot be set: a change of \(file) would not take effect; set it by hand; nothing was changed"
        case .conflictingTable(let table, let path, let line):
            "\(path) line \(line) has \(table), with which containerd's CRI plugin does not load once config_path is set: "
                + "move it into hosts.toml files first (https://github.com/containerd/containerd/blob/main/docs/hosts.md); "
                + "nothing was changed"
        case .refused(let reason): "containerd refuses the changed configuration (\(reason)); nothing was changed"
        }
    }
}

/// containerd's configuration: the main file and those it imports, in the order in which they are merged.
///
/// See https://github.com/containerd/containerd/blob/main/docs/cri/config.md. Up to 1.7 a plugin's settings come as a whole
/// from the last file that has any of them; from 2.0 on each setting comes from the last file that has it.
package struct ContainerdConfigurationFiles: Sendable {
    /// One file.
    package struct File: Sendable {
        package var path: String
        package var document: TOMLDocument
        /// The `version` that the file states; nil when it states none.
        package var version: Int64?
        /// The files that it imports, resolved.
        package var imports: [String]
    }

    /// Files at most, the main one included.
    package static let fileLimit = 64

    /// How files are read: from the file system, or from memory in tests.
    package struct Reader: Sendable {
        /// The content, or nil when there is no such file.
        package var read: @Sendable (String) throws -> [UInt8]?
        /// The paths that a pattern with `*` stands for, sorted.
        package var expand: @Sendable (String) -> [String]

        package init(
            read: @escaping @Sendable (String) throws -> [UInt8]?, expand: @escaping @Sendable (String) -> [String]
        ) {
            self.read = read
            self.expand = expand
        }
    }

    /// The files; the main one first.
    package private(set) var files: [File]
    /// containerd's version where it is known.
    package var release: ContainerdRelease?

    /// Reads a configuration.
    ///
    /// - Parameter main: The path of the main file. When there is none, it is taken as an empty one.
    /// - Throws: ``ContainerdConfigurationError``.
    package init(main: String, release: ContainerdRelease? = nil, reader: Reader = .fileSystem) throws {
        self.release = release
        files = []
        var pending: [(path: String, importer: String?)] = [(main, nil)]
        var loaded: Set<String> = []
        while !pending.isEmpty {
            let (path, importer) = pending.removeFirst()
            guard loaded.insert(path).inserted else { continue }
            guard files.count < Self.fileLimit else {
                throw ContainerdConfigurationError.tooManyFiles(limit: Self.fileLimit)
            }
            guard let bytes = try reader.read(path) ?? (importer == nil ? [] : nil) else {
                throw ContainerdConfigurationError.missingImport(path: path, importedBy: importer ?? main)
            }
            let file = try Self.file(path, bytes: bytes, expand: reader.expand)
            files.append(file)
            pending += file.imports.map { ($0, path) }
        }
    }

    private static func file(_ path: String, bytes: [UInt8], expand: (String) -> [String]) throws -> File {
        let document: TOMLDocument
        do {
            document = try TOMLDocument(parsing: bytes)
        } catch {
            throw ContainerdConfigurationError.malformed(path: path, reason: error)
        }
        let version = document.root[["version"]]?.integer
        if let version, !(1...4).contains(version) {
            throw ContainerdConfigurationError.unknownVersion(path: path, version: version)
        }
        let directory = path.directoryPath
        let imports = (document.root[["imports"]]?.array ?? []).compactMap(\.string).flatMap { name -> [String] in
            let full = name.hasPrefix("/") ? name : directory + "/" + name
            let path = full.normalizedPath
            return path.contains("*") ? expand(path) : [path]
        }
        return File(path: path, document: document, version: version, imports: imports)
    }

    /// The main file.
    package var main: File { files[0] }

    /// The form of the main file: 1 to 4; 2 for an empty file, which is what this program then writes.
    package var version: Int64 {
        if let version = main.version { return version }
        return main.document.mentions(["plugins"]) ? (release.map { $0.major >= 2 } ?? false ? 2 : 1) : 2
    }

    /// Replaces one file's content.
    package mutating func replace(_ path: String, with document: TOMLDocument) {
        guard let index = files.firstIndex(where: { $0.path == path }) else { return }
        files[index].document = document
        files[index].version = document.root[["version"]]?.integer
    }

    // MARK: Settings

    /// A setting of the plugin that pulls images.
    package enum Setting: String, Sendable, CaseIterable {
        /// The directories of the registries' `hosts.toml` files, separated by colons.
        case configPath = "config_path"
        /// Whether layers go once they are unpacked.
        case discardUnpackedLayers = "discard_unpacked_layers"
        /// From 2.1 on: whether CRI pulls by itself, not through the transfer service.
        case useLocalImagePull = "use_local_image_pull"
        /// The old tables that take the place of `config_path`.
        case mirrors = "registry.mirrors"
        case configs = "registry.configs"
        case auths = "registry.auths"
        case disableSnapshotAnnotations = "disable_snapshot_annotations"
        case maxConcurrentDownloads = "max_concurrent_downloads"
        case imagePullWithSyncFS = "image_pull_with_sync_fs"
        /// From 2.1 on: bytes of a layer that are fetched at once by several requests; 0 for one request a layer.
        case concurrentLayerFetchBuffer = "concurrent_layer_fetch_buffer"

        /// The keys below the plugin's table in a file of some version.
        package func path(version: Int64) -> [String] {
            switch self {
            case .configPath: ["registry", "config_path"]
            case .discardUnpackedLayers:
                version >= 3 ? ["discard_unpacked_layers"] : ["containerd", "discard_unpacked_layers"]
            case .useLocalImagePull: ["use_local_image_pull"]
            case .mirrors: ["registry", "mirrors"]
            case .configs: ["registry", "configs"]
            case .auths: ["registry", "auths"]
            case .disableSnapshotAnnotations:
                version >= 3 ? ["disable_snapshot_annotations"] : ["containerd", "disable_snapshot_annotations"]
            case .maxConcurrentDownloads: ["max_concurrent_downloads"]
            case .imagePullWithSyncFS: ["image_pull_with_sync_fs"]
            case .concurrentLayerFetchBuffer: ["concurrent_layer_fetch_buffer"]
            }
        }
    }

    /// The name of the plugin in a file of some version.
    package static func plugin(version: Int64) -> String {
        switch version {
        case ...1: "cri"
        case 2: "io.containerd.grpc.v1.cri"
        default: "io.containerd.cri.v1.images"
        }
    }

    /// The form in which a file's plugin tables are read: that of the file, or of the main file when it states none.
    package func version(of file: File) -> Int64 { file.version ?? version }

    /// Where a setting's value is, and what.
    package struct Value: Sendable {
        package var value: TOMLValue
        package var path: String
        package var line: Int
    }

    /// The value in force; nil when no file sets it.
    package func value(of setting: Setting) -> Value? {
        if let release { return value(of: setting, mergesPlugins: release.major >= 2) }
        return value(of: setting, mergesPlugins: version >= 3)
    }

    private func value(of setting: Setting, mergesPlugins: Bool) -> Value? {
        for file in files.reversed() {
            let version = version(of: file)
            let plugin = ["plugins", Self.plugin(version: version)]
            // containerd 2 reads its own plugin's table in a file of version 2, too; what the old table says counts more.
            let newPlugin = mergesPlugins && version < 3 ? ["plugins", Self.plugin(version: 3)] : plugin
            for path in [
                plugin + setting.path(version: version), newPlugin + setting.path(version: mergesPlugins ? 3 : version),
            ] {
                if let value = Self.value(at: path, in: file) { return value }
            }
            // Up to 1.7 what this file says of the plugin is all that counts.
            if !mergesPlugins, file.document.root[plugin] != nil { return nil }
        }
        return nil
    }

    private static func value(at path: [String], in file: File) -> Value? {
        guard let value = file.document.root[path] else { return nil }
        let places =
            file.document.assignments.filter { $0.path.starts(with: path) }.map(\.line.lowerBound)
            + file.document.headers.filter { $0.path.starts(with: path) }.map(\.line.lowerBound)
        return Value(value: value, path: file.path, line: file.document.line(of: places.min() ?? 0))
    }

    /// Where several requests for one layer are turned on, from 2.1 on; nil where they are off, as by default.
    package var parallelLayerFetch: Value? {
        let key = Setting.concurrentLayerFetchBuffer
        let transfer = ["plugins", "io.containerd.transfer.v1.local", key.rawValue]
        let value =
            usesTransferService
            ? files.reversed().lazy.compactMap { Self.value(at: transfer, in: $0) }.first : value(of: key)
        return (value?.value.integer ?? 0) > 0 ? value : nil
    }

    /// The value in force by each way of merging that is possible: one where containerd's version is known.
    package func possibleValues(of setting: Setting) -> [TOMLValue?] {
        let ways: [Bool] = release.map { [$0.major >= 2] } ?? (version >= 3 ? [true] : [false, true])
        return ways.map { value(of: setting, mergesPlugins: $0)?.value }
    }

    /// What containerd takes for an absent `config_path` from 2.2 on, unless there are mirror tables.
    package static let defaultConfigPath = "/etc/containerd/certs.d:/etc/docker/certs.d"

    /// `config_path` as it is in force, containerd's default included.
    package var configPath: String {
        let text = value(of: .configPath)?.value.string ?? ""
        guard text.isEmpty, let release, release >= ContainerdRelease(major: 2, minor: 2), !hasEntries(.mirrors) else {
            return text
        }
        return Self.defaultConfigPath
    }

    /// The directories in which containerd looks for a registry's `hosts.toml`, in order.
    package var registryDirectories: [String] { configPath.split(separator: ":").map(String.init) }

    private func hasEntries(_ setting: Setting) -> Bool { value(of: setting)?.value.table?.isEmpty == false }

    /// Whether CRI pulls through the transfer service, which takes `config_path` for one directory: the default from 2.1
    /// on. containerd turns it off by itself for settings that the service does not know.
    package var usesTransferService: Bool {
        guard release.map({ $0 >= ContainerdRelease(major: 2, minor: 1) }) ?? (version >= 3) else { return false }
        return value(of: .useLocalImagePull)?.value != .boolean(true)
            && value(of: .disableSnapshotAnnotations)?.value != .boolean(false)
            && value(of: .discardUnpackedLayers)?.value != .boolean(true)
            && value(of: .imagePullWithSyncFS)?.value != .boolean(true)
            && (value(of: .maxConcurrentDownloads)?.value.integer ?? 3) == 3
            && !hasEntries(.mirrors) && !hasEntries(.configs) && !hasEntries(.auths)
    }

    /// A table with which the CRI plugin does not load beside `config_path`: `registry.mirrors`, and before 2.0
    /// certificates in `registry.configs`.
    package var conflictingTable: (setting: Setting, value: Value)? {
        if let value = value(of: .mirrors), hasEntries(.mirrors) { return (.mirrors, value) }
        guard release.map({ $0.major < 2 }) ?? (version < 3), let value = value(of: .configs),
            let entries = value.value.table, entries.values.contains(where: { $0[["tls"]] != nil })
        else { return nil }
        return (.configs, value)
    }

    /// The file in which a setting has to stand to be in force.
    package func fileToChange(for setting: Setting) -> File {
        if let current = value(of: setting), let file = files.first(where: { $0.path == current.path }) { return file }
        // What a later file says of the plugin replaces the main file's settings where containerd does not merge them.
        return files.last { file in
            file.document.root[["plugins", Self.plugin(version: version(of: file))]] != nil
        } ?? main
    }
}

extension ContainerdConfigurationFiles.Reader {
    /// Reads files of this machine.
    package static let fileSystem = Self(
        read: { path in
            guard FileManager.default.fileExists(atPath: path) else { return nil }
            do {
                let data = try Data(contentsOf: URL(fileURLWithPath: path))
                return Array(data)
            } catch {
                let reason = fileErrorReason(error)
                throw ContainerdConfigurationError.file(path: path, reason: "cannot be read: \(reason)")
            }
        },
        expand: { pattern in
            // Patterns stand in file names, as containerd's documentation has them.
            let directory = pattern.directoryPath
            let name = pattern.fileName
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            return names.filter { Self.matches($0, pattern: name) }.sorted().map { directory + "/" + $0 }
        })

    /// Whether a name matches a pattern in which `*` stands for any text and `?` for one character.
    package static func matches(_ name: String, pattern: String) -> Bool {
        let name = Array(name.utf8), pattern = Array(pattern.utf8)
        var n = 0, p = 0, star: Int?, mark = 0
        while n < name.count {
            if p < pattern.count, pattern[p] == 0x2a {
                star = p
                mark = n
                p += 1
            } else if p < pattern.count, pattern[p] == name[n] || pattern[p] == 0x3f {
                n += 1
                p += 1
            } else if let last = star {
                p = last + 1
                mark += 1
                n = mark
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == 0x2a }
    }
}
