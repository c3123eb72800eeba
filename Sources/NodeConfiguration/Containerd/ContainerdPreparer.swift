import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Prepares containerd for a mirror: changes its configuration where that is needed, restarts it as told, and takes the change
/// back when containerd does not come up with it.
package struct ContainerdPreparer: Sendable {
    /// The main configuration file.
    package var configurationFile = "/etc/containerd/config.toml"
    /// The directory that `config_path` shall have.
    package var registryDirectory = "/etc/containerd/certs.d"
    /// Restarts containerd; nil to leave that to somebody else.
    package var restart: HostCommand?
    /// The `containerd` program that is asked whether it accepts the change; nil not to ask.
    package var program: HostCommand?
    /// containerd's version, where it is known.
    package var release: ContainerdRelease?
    /// Whether containerd answers now.
    package var isAnswering: @Sendable () async -> Bool
    /// How long containerd may take to answer after a restart.
    package var restartTimeout: Duration = .seconds(60)
    /// Told what is done.
    package var log: @Sendable (String) -> Void

    package init(isAnswering: @escaping @Sendable () async -> Bool, log: @escaping @Sendable (String) -> Void) {
        self.isAnswering = isAnswering
        self.log = log
    }

    /// What a run did.
    package struct Outcome: Sendable {
        /// What was changed; nothing when both settings were in force.
        package var preparation: ContainerdPreparation
        /// Where each changed file's former content is.
        package var backups: [String]
        package var isRestarted: Bool
    }

    /// Plans the change, without writing.
    ///
    /// - Throws: ``ContainerdConfigurationError``.
    package func plan() throws -> ContainerdPreparation {
        let files = try ContainerdConfigurationFiles(main: configurationFile, release: release)
        return try ContainerdPreparation(
            files, registryDirectory: registryDirectory,
            mainExists: FileManager.default.fileExists(atPath: configurationFile))
    }

    /// Prepares containerd. A run that was killed is completed by the next one: its restart, or taking the change back.
    ///
    /// - Throws: ``ContainerdConfigurationError``; the files are then as they were.
    package func run() async throws -> Outcome {
        let preparation = try plan()
        let earlier = restart == nil ? [] : pendingFiles()
        guard !preparation.changes.isEmpty else {
            guard let restart, !earlier.isEmpty else {
                return Outcome(preparation: preparation, backups: [], isRestarted: false)
            }
            log("an earlier run ended before containerd was restarted")
            try await restartOrUndo(restart, earlier)
            return Outcome(preparation: preparation, backups: [], isRestarted: true)
        }
        try await check(preparation)
        var backups: [String] = []
        // What an earlier run replaced goes back to what was there before that.
        var changed = earlier
        do {
            for change in preparation.changes {
                let backup = try backUp(change)
                if let backup { backups.append(backup) }
                if !changed.contains(where: { $0.path == change.path }) {
                    changed.append(PendingFile(path: change.path, backup: backup))
                }
                if restart != nil { try writePending(changed) }
                try Self.write(change.new, to: change.path)
                log("changed \(change.path)" + (backup.map { ", the former file is \($0)" } ?? ""))
            }
        } catch {
            undo(changed)
            throw error
        }
        guard let restart else { return Outcome(preparation: preparation, backups: backups, isRestarted: false) }
        try await restartOrUndo(restart, changed)
        return Outcome(preparation: preparation, backups: backups, isRestarted: true)
    }

    private func restartOrUndo(_ restart: HostCommand, _ changed: [PendingFile]) async throws {
        do {
            try await restartContainerd(restart)
        } catch {
            undo(changed)
            log("containerd did not come up; the former configuration is back, restarting once more")
            try? await restartContainerd(restart)
            throw error
        }
        unlink(pendingPath)
    }

    // MARK: Changes that wait for a restart

    /// A file that was changed, and what it was before.
    private struct PendingFile: Codable {
        var path: String
        /// Nil when there was no file.
        var backup: String?
    }

    /// Lists the changed files while containerd has not come up with them.
    private var pendingPath: String { configurationFile + ".spegel-pending" }

    private func pendingFiles() -> [PendingFile] {
        FileManager.default.contents(atPath: pendingPath)
            .flatMap { try? JSONDecoder().decode([PendingFile].self, from: $0) } ?? []
    }

    private func writePending(_ files: [PendingFile]) throws {
        try Self.write(Array(try JSONEncoder().encode(files)), to: pendingPath, mode: 0o600)
    }

    private func restartContainerd(_ command: HostCommand) async throws {
        log("restarting containerd: \(command.text)")
        let outcome = try await command.run()
        guard outcome.succeeded else {
            throw ContainerdConfigurationError.refused(
                reason: "'\(command.text)' ended with \(outcome.status): \(Self.lastLines(outcome.output))")
        }
        // Answering twice, as one that crashes at start may answer once.
        let clock = ContinuousClock()
        let deadline = clock.now + restartTimeout
        var answers = 0
        while answers < 2 {
            guard clock.now < deadline else {
                throw ContainerdConfigurationError.refused(
                    reason: "it does not answer \(restartTimeout) after the restart")
            }
            if await isAnswering() { answers += 1 } else { answers = 0 }
            try await Task.sleep(for: .milliseconds(500))
        }
        log("containerd answers")
    }

    /// Asks containerd's own `config dump` whether it reads the change as intended, on copies.
    private func check(_ preparation: ContainerdPreparation) async throws {
        guard let program else { return }
        let directory = configurationFile.directoryPath + "/.spegel-check-\(getpid())"
        try? FileManager.default.removeItem(atPath: directory)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            var copies: [String: String] = [:]
            for (index, file) in preparation.result.files.enumerated() {
                copies[file.path] = "\(directory)/\(index).toml"
            }
            for file in preparation.result.files {
                var document = file.document
                if document.root[["imports"]] != nil {
                    let list = file.imports.compactMap { copies[$0] }.map(TOMLDocument.basicString).joined(
                        separator: ", ")
                    document = try document.setting(["imports"], to: "[\(list)]")
                }
                try Self.write(document.bytes, to: copies[file.path] ?? "")
            }
        } catch let error as TOMLError {
            throw ContainerdConfigurationError.malformed(path: configurationFile, reason: error)
        }
        var command = program
        command.arguments += ["--config", "\(directory)/0.toml", "config", "dump"]
        command.timeout = .seconds(30)
        let outcome = try await command.run()
        guard outcome.status != 127, outcome.status != 126 else {
            log("'\(program.text)' cannot be started, so that its own view of the change is not known")
            return
        }
        guard outcome.succeeded else {
            throw ContainerdConfigurationError.refused(reason: Self.lastLines(outcome.output))
        }
        try verify(dump: outcome.output)
    }

    private func verify(dump: String) throws {
        // Warnings may stand before the dump.
        let lines = dump.split(separator: "\n", omittingEmptySubsequences: false)
        let text = lines.drop { $0.hasPrefix("time=") || $0.hasPrefix("INFO") || $0.hasPrefix("WARN") }.joined(
            separator: "\n")
        guard let document = try? TOMLDocument(parsing: Array(text.utf8)),
            let files = try? ContainerdConfigurationFiles(
                main: "/dump",
                release: release, reader: .init(read: { $0 == "/dump" ? document.bytes : [] }, expand: { _ in [] }))
        else { return }
        // A dump of a program without the CRI plugin says nothing of its settings.
        guard files.main.document.mentions(["plugins", ContainerdConfigurationFiles.plugin(version: files.version)])
        else { return }
        for (setting, isRight) in [
            (
                ContainerdConfigurationFiles.Setting.configPath,
                files.registryDirectories.contains { $0 == registryDirectory }
            ),
            (.discardUnpackedLayers, files.keepsLayers),
        ] where !isRight {
            throw ContainerdConfigurationError.notInForce(setting: setting.rawValue, file: configurationFile)
        }
    }

    // MARK: Files

    /// Keeps the former file beside it, once for each content.
    private func backUp(_ change: ContainerdPreparation.Change) throws -> String? {
        guard !change.isNew else { return nil }
        for number in 0..<1000 {
            let path = change.path + ".spegel-backup" + (number == 0 ? "" : "-\(number)")
            if let former = FileManager.default.contents(atPath: path) {
                if Array(former) == change.old { return path }
                continue
            }
            let mode =
                (try? FileManager.default.attributesOfItem(atPath: change.path)[.posixPermissions] as? Int) ?? 0o600
            try Self.write(change.old, to: path, mode: mode)
            return path
        }
        throw ContainerdConfigurationError.file(path: change.path, reason: "has 1,000 backups; remove some")
    }

    private func undo(_ files: [PendingFile]) {
        var isComplete = true
        for file in files {
            do {
                if let backup = file.backup {
                    guard let former = FileManager.default.contents(atPath: backup) else {
                        throw Self.fileError(backup)
                    }
                    try Self.write(Array(former), to: file.path)
                } else if FileManager.default.fileExists(atPath: file.path) {
                    try FileManager.default.removeItem(atPath: file.path)
                }
                log("\(file.path) is as it was")
            } catch {
                isComplete = false
                log("\(file.path) could not be restored (\(error)); its former content is beside it")
            }
        }
        if isComplete { unlink(pendingPath) }
    }

    /// Writes a file so that a crash leaves the old or the new one; owner and mode stay.
    static func write(_ bytes: [UInt8], to path: String, mode: Int? = nil) throws {
        var target = path
        if let real = realpath(path, nil) {
            target = String(cString: real)
            free(real)
        }
        var former = stat()
        let exists = stat(target, &former) == 0
        let staged =
            "\(target.directoryPath)/.\(target.fileName).spegel-new"
        unlink(staged)
        let descriptor = open(staged, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw fileError(staged) }
        var isRenamed = false
        defer {
            close(descriptor)
            if !isRenamed { unlink(staged) }
        }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { throw fileError(staged) }
            written += count
        }
        let permissions = mode.map { mode_t($0) } ?? (exists ? former.st_mode & 0o7777 : 0o644)
        guard fchmod(descriptor, permissions) == 0, !exists || fchown(descriptor, former.st_uid, former.st_gid) == 0,
            fsync(descriptor) == 0, rename(staged, target) == 0
        else { throw fileError(target) }
        isRenamed = true
        let directory = open(target.directoryPath, O_RDONLY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
    }

    private static func fileError(_ path: String) -> ContainerdConfigurationError {
        .file(path: path, reason: String(cString: strerror(errno)))
    }

    private static func lastLines(_ text: String) -> String {
        text.split(separator: "\n").suffix(3).joined(separator: " | ")
    }
}
