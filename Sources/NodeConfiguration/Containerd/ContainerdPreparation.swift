import Foundation

/// The change of containerd's configuration that a mirror needs: registries configured by directory, and layers kept.
package struct ContainerdPreparation: Sendable {
    /// One file, before and after.
    package struct Change: Sendable, Hashable {
        package var path: String
        package var old: [UInt8]
        package var new: [UInt8]
        /// Whether there was no file.
        package var isNew: Bool
    }

    /// What has to change; empty when both settings are in force.
    package private(set) var changes: [Change] = []
    /// What an operator should know besides.
    package private(set) var warnings: [String] = []
    /// The configuration with the changes.
    package private(set) var result: ContainerdConfigurationFiles

    /// Plans a change.
    ///
    /// - Parameters:
    ///   - files: The configuration.
    ///   - registryDirectory: The directory that `config_path` shall have. A list that has it among others stays.
    /// - Throws: ``ContainerdConfigurationError``.
    package init(_ files: ContainerdConfigurationFiles, registryDirectory: String, mainExists: Bool = true) throws {
        result = files
        if let (setting, value) = files.conflictingTable {
            throw ContainerdConfigurationError.conflictingTable(
                table: setting.rawValue, path: value.path, line: value.line)
        }
        if files.main.version == nil, !files.main.document.mentions(["plugins"]),
            !files.isPrepared(for: registryDirectory)
        {
            // Without a version containerd 1.x takes a file for the form of 1.0.
            try set(["version"], to: "2", in: files.main)
        }
        // Layers first: discarding them keeps containerd 2.1 and later from using the transfer service.
        if !result.keepsLayers { try apply(.discardUnpackedLayers, literal: "false") { $0.keepsLayers } }
        if !result.hasRegistryDirectory(registryDirectory) {
            let literal = TOMLDocument.basicString(registryDirectory)
            try apply(.configPath, literal: literal) { $0.hasRegistryDirectory(registryDirectory) }
        }
        changes = zip(files.files, result.files).compactMap { old, new in
            old.document.bytes == new.document.bytes
                ? nil
                : Change(
                    path: old.path, old: old.document.bytes, new: new.document.bytes,
                    isNew: old.path == files.main.path && !mainExists)
        }
        warn(registryDirectory)
    }

    private mutating func apply(
        _ setting: ContainerdConfigurationFiles.Setting, literal: String,
        isInForce: (ContainerdConfigurationFiles) -> Bool
    ) throws {
        let before = result
        let file = before.fileToChange(for: setting)
        try set(path(of: setting, in: file), to: literal, in: file)
        if !isInForce(result), file.path != before.main.path {
            // Set in the main file as well: which of both counts depends on containerd's version.
            try set(path(of: setting, in: result.main), to: literal, in: result.main)
        }
        guard isInForce(result) else {
            throw ContainerdConfigurationError.notInForce(setting: setting.rawValue, file: file.path)
        }
    }

    private func path(of setting: ContainerdConfigurationFiles.Setting, in file: ContainerdConfigurationFiles.File)
        -> [String]
    {
        let version = result.version(of: file)
        return ["plugins", ContainerdConfigurationFiles.plugin(version: version)] + setting.path(version: version)
    }

    private mutating func set(_ path: [String], to literal: String, in file: ContainerdConfigurationFiles.File) throws {
        let current = result.files.first { $0.path == file.path } ?? file
        do {
            result.replace(file.path, with: try current.document.setting(path, to: literal))
        } catch {
            throw ContainerdConfigurationError.malformed(path: file.path, reason: error)
        }
    }

    private mutating func warn(_ registryDirectory: String) {
        guard result.registryDirectories.count > 1, result.usesTransferService else { return }
        let place = result.value(of: .configPath).map { " in \($0.path) line \($0.line)" } ?? ""
        warnings.append(
            "config_path\(place) is a list; from containerd 2.1 on the transfer service takes it for one directory, so that"
                + " no mirror is asked: name \(registryDirectory) alone, or set use_local_image_pull = true in"
                + " [plugins.'io.containerd.cri.v1.images']")
    }

    /// The changes as unified diffs; empty when there are none.
    package var diff: String {
        changes.map { UnifiedDiff.text(old: $0.old, new: $0.new, path: $0.path) }.joined()
    }
}

extension ContainerdConfigurationFiles {
    /// Whether both settings that a mirror needs are in force.
    package func isPrepared(for registryDirectory: String) -> Bool {
        hasRegistryDirectory(registryDirectory) && keepsLayers
    }

    /// Whether registries are configured in a directory, perhaps among others.
    ///
    /// The list that containerd takes for an absent `config_path` counts only where CRI reads it as a list.
    package func hasRegistryDirectory(_ directory: String) -> Bool {
        func has(_ list: String) -> Bool {
            list.split(separator: ":").contains {
                String($0).normalizedPath == directory.normalizedPath
            }
        }
        if configPath == Self.defaultConfigPath, (value(of: .configPath)?.value.string ?? "").isEmpty {
            return !usesTransferService && has(configPath)
        }
        return possibleValues(of: .configPath).allSatisfy { has($0?.string ?? "") }
    }

    /// Whether layers stay when they have been unpacked, which is containerd's default.
    package var keepsLayers: Bool {
        possibleValues(of: .discardUnpackedLayers).allSatisfy { $0 == nil || $0 == .boolean(false) }
    }
}

/// The difference of two files in the unified form that `patch` reads.
package enum UnifiedDiff {
    private static let context = 3

    package static func text(old: [UInt8], new: [UInt8], path: String) -> String {
        let before = lines(old), after = lines(new)
        let difference = after.difference(from: before)
        guard !difference.isEmpty else { return "" }
        var removed: Set<Int> = [], inserted: Set<Int> = []
        for change in difference {
            switch change {
            case .remove(let offset, _, _): removed.insert(offset)
            case .insert(let offset, _, _): inserted.insert(offset)
            }
        }
        // Each line of both files in order, marked.
        var rows: [(mark: Character, text: String, old: Int, new: Int)] = []
        var left = 0, right = 0
        while left < before.count || right < after.count {
            if left < before.count, removed.contains(left) {
                rows.append(("-", before[left], left, right))
                left += 1
            } else if right < after.count, inserted.contains(right) {
                rows.append(("+", after[right], left, right))
                right += 1
            } else {
                rows.append((" ", before[left], left, right))
                left += 1
                right += 1
            }
        }
        var result = "--- \(path)\n+++ \(path)\n"
        var index = 0
        while let first = rows[index...].firstIndex(where: { $0.mark != " " }) {
            let start = max(index, first - context)
            var end = first
            while let next = rows[end...].firstIndex(where: { $0.mark != " " }), next - end <= 2 * context {
                end = next + 1
            }
            let stop = min(rows.count, end + context)
            let hunk = rows[start..<stop]
            let oldCount = hunk.count { $0.mark != "+" }, newCount = hunk.count { $0.mark != "-" }
            result += "@@ -\(range(hunk[start].old, oldCount)) +\(range(hunk[start].new, newCount)) @@\n"
            for row in hunk {
                result += String(row.mark) + row.text
                // By bytes, as a carriage return and a line feed are one character.
                if row.text.utf8.last != 0x0a { result += "\n\\ No newline at end of file\n" }
            }
            index = stop
            if index >= rows.count { break }
        }
        return result
    }

    private static func range(_ start: Int, _ count: Int) -> String {
        count == 0 ? "\(start),0" : "\(start + 1),\(count)"
    }

    private static func lines(_ bytes: [UInt8]) -> [String] {
        var result: [String] = []
        var start = 0
        for (index, byte) in bytes.enumerated() where byte == 0x0a {
            result.append(String(decoding: bytes[start...index], as: UTF8.self))
            start = index + 1
        }
        if start < bytes.count { result.append(String(decoding: bytes[start...], as: UTF8.self)) }
        return result
    }
}
