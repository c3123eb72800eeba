import CNodeSystem
import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The directory of containerd's registry configuration, read as a ``FileTree`` and replaced as a whole.
///
/// A new tree is written beside the old one and synchronised; then both exchange their places in one step, so that a crash
/// leaves the old or the new one. Where the directory cannot be exchanged, because it is a mount point or the file system
/// cannot do it, its entries are exchanged one by one under a journal, which the next run completes.
package struct ConfigurationDirectory: Sendable {
    /// Files larger than this are kept, but not read, in bytes.
    package static let contentLimit = 1 << 20
    /// Files, directories and links in one configuration.
    package static let entryLimit = 10_000
    private static let depthLimit = 32
    /// What is being written, while it is not yet in its place.
    static let stagingName = ".spegel-staging"

    /// The directory, with symbolic links resolved where it exists.
    package let path: String
    /// Called after each step, with its name; tests stop there.
    package var afterStep: @Sendable (String) throws -> Void = { _ in }

    /// Whether the directory is exchanged as a whole where it can be; tests try the other way too.
    package var exchangesWhole = true

    package init(path: String) {
        self.path = Self.resolved(path)
    }

    private static func resolved(_ path: String) -> String {
        guard let real = realpath(path, nil) else {
            return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
        }
        defer { free(real) }
        return String(cString: real)
    }

    private var parent: String { path.directoryPath }
    /// Where a whole new tree is written.
    private var sibling: String { "\(parent)/.\(path.fileName)\(Self.stagingName)" }
    /// Where new entries are written when only entries can be exchanged.
    private var inner: String { "\(path)/\(Self.stagingName)" }

    // MARK: The whole way

    /// Configures mirrors.
    ///
    /// - Returns: What is worth saying.
    /// - Throws: ``HostsConfigurationError``; then nothing has changed.
    package func configure(_ plan: MirrorConfigurationPlan) throws -> [String] {
        if !exists(path) { try makeDirectory(path, mode: 0o755, withParents: true) }
        return try locked {
            try recover()
            let old = try read()
            let (new, notes) = try plan.configured(old)
            try replace(with: new, old: old)
            return notes
        }
    }

    /// Takes the mirrors out again.
    ///
    /// - Returns: What is worth saying; nil when no mirror was configured.
    /// - Throws: ``HostsConfigurationError``; then nothing has changed.
    package func cleanUp() throws -> [String]? {
        guard exists(path) else { return nil }
        return try locked {
            try recover()
            let old = try read()
            guard let (new, notes) = MirrorConfigurationPlan.cleanedUp(old) else { return nil }
            try replace(with: new, old: old)
            return notes
        }
    }

    /// How long another run on the same directory is waited for, in seconds.
    private static let lockTimeout = 30

    /// Does something while no other process configures the directory.
    private func locked<Result>(_ body: () throws -> Result) throws -> Result {
        for _ in 0..<Self.lockTimeout * 20 {
            let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard descriptor >= 0 else { throw systemError(path) }
            defer { close(descriptor) }
            var held = stat()
            // The directory that was locked may have been exchanged for another in the meantime.
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0, fstat(descriptor, &held) == 0,
                let current = try? status(path), current.st_ino == held.st_ino
            {
                return try body()
            }
            usleep(50_000)
        }
        throw HostsConfigurationError.file(
            path: path, reason: "another process has been configuring it for \(Self.lockTimeout) seconds")
    }

    // MARK: Reading

    /// Reads what is there; an absent directory is an empty one.
    ///
    /// - Throws: ``HostsConfigurationError``.
    package func read() throws -> FileTree {
        var count = 0
        guard exists(path) else { return FileTree() }
        var tree = try readDirectory(path, relative: "", depth: 0, linkBase: path, count: &count)
        tree.entries[Self.stagingName] = nil
        return tree
    }

    private func readDirectory(
        _ directory: String, relative: String, depth: Int, linkBase: String, count: inout Int
    ) throws -> FileTree {
        guard depth < Self.depthLimit else {
            throw HostsConfigurationError.file(
                path: directory, reason: "nested deeper than \(Self.depthLimit) directories")
        }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
        } catch {
            throw HostsConfigurationError.file(path: directory, reason: fileErrorReason(error))
        }
        var tree = FileTree(mode: try status(directory).mode & 0o7777)
        for name in names {
            count += 1
            guard count <= Self.entryLimit else {
                throw HostsConfigurationError.tooManyFiles(path: path, limit: Self.entryLimit)
            }
            if depth == 0, name == Self.stagingName { continue }
            // Links of the backup lead where they led before they were moved there.
            let base = depth == 0 && name == MirrorConfigurationPlan.backupName ? path : linkBase + "/" + name
            tree.entries[name] = try readNode(
                directory + "/" + name, relative: relative.isEmpty ? name : relative + "/" + name, depth: depth,
                linkBase: base,
                count: &count)
        }
        return tree
    }

    private func readNode(
        _ node: String, relative: String, depth: Int, linkBase: String, count: inout Int
    ) throws -> FileTree.Node {
        let status = try status(node)
        switch status.mode & S_IFMT {
        case S_IFREG:
            return .file(try readFile(node, relative: relative, status: status))
        case S_IFDIR:
            return .directory(
                try readDirectory(node, relative: relative, depth: depth + 1, linkBase: linkBase, count: &count))
        case S_IFLNK:
            let target: String
            do {
                target = try FileManager.default.destinationOfSymbolicLink(atPath: node)
            } catch {
                throw HostsConfigurationError.file(path: node, reason: fileErrorReason(error))
            }
            let place = target.hasPrefix("/") ? target : linkBase.directoryPath + "/" + target
            return .link(target: target, content: try followLink(place, depth: depth, count: &count))
        default:
            return .other(origin: relative)
        }
    }

    /// What a symbolic link leads to; nil when it cannot be read.
    private func followLink(_ target: String, depth: Int, count: inout Int) throws -> FileTree.Node? {
        guard let real = realpath(target, nil) else { return nil }
        defer { free(real) }
        let place = String(cString: real)
        guard !place.hasPrefix(path + "/"), place != path,
            var node = try? readNode(
                place, relative: "", depth: depth + 1, linkBase: place, count: &count)
        else { return nil }
        node.dropOrigins()
        return node
    }

    private func readFile(_ file: String, relative: String, status: stat) throws -> FileTree.File {
        var result = FileTree.File(bytes: nil, mode: UInt32(status.st_mode) & 0o7777, origin: relative)
        guard status.st_size <= Self.contentLimit else { return result }
        do {
            result.bytes = Array(try Data(contentsOf: URL(fileURLWithPath: file)))
        } catch {
            throw HostsConfigurationError.file(path: file, reason: fileErrorReason(error))
        }
        return result
    }

    private func status(_ path: String) throws -> stat {
        var result = stat()
        guard lstat(path, &result) == 0 else { throw systemError(path) }
        return result
    }

    private func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    // MARK: Writing

    /// Completes or undoes what a run that was ended in the middle left. Called before reading.
    ///
    /// - Throws: ``HostsConfigurationError``.
    package func recover() throws {
        if exists(sibling) { try remove(sibling) }
        guard exists(inner) else { return }
        if exists(inner + "/journal") { try completeJournal() } else { try remove(inner) }
    }

    /// Replaces the directory's content by a new tree.
    ///
    /// - Parameters:
    ///   - new: What shall be there. Files with an origin are taken from there.
    ///   - old: What ``read()`` found.
    /// - Throws: ``HostsConfigurationError``; the directory then holds what it held before, or the new tree when only
    ///   cleaning up behind it failed.
    package func replace(with new: FileTree, old: FileTree) throws {
        guard !isSame(new, old) else { return }
        if !exists(path) { try makeDirectory(path, mode: 0o755, withParents: true) }
        do {
            guard exchangesWhole else { throw CannotExchange() }
            try replaceWhole(new)
        } catch is CannotExchange {
            try? remove(sibling)
            try replaceEntries(new, old: old)
        }
    }

    /// The directory cannot be exchanged as a whole here.
    private struct CannotExchange: Error {}

    private func replaceWhole(_ new: FileTree) throws {
        let status = try status(path)
        guard (try? self.status(parent)).map({ $0.st_dev == status.st_dev }) ?? false, mkdir(sibling, 0o700) == 0 else {
            throw CannotExchange()
        }
        try afterStep("staging made")
        try write(new, to: sibling)
        var mode = status
        mode.st_mode &= 0o7777
        guard chmod(sibling, mode.st_mode) == 0, chown(sibling, status.st_uid, status.st_gid) == 0 else {
            throw systemError(sibling)
        }
        try synchronise(sibling)
        try afterStep("staging written")
        guard node_exchange_paths(sibling, path) == 0 else { throw CannotExchange() }
        try afterStep("exchanged")
        try synchronise(parent)
        try remove(sibling)
        try afterStep("old removed")
    }

    /// Exchanges the entries one by one. The journal lists the new entries' inodes, by which a later run sees which have
    /// been exchanged already.
    private func replaceEntries(_ new: FileTree, old: FileTree) throws {
        try makeDirectory(inner, mode: 0o700)
        try makeDirectory(inner + "/new", mode: 0o700)
        try afterStep("staging made")
        try write(new, to: inner + "/new")
        try synchronise(inner + "/new")
        try afterStep("staging written")
        var lines: [String] = []
        for name in Set(new.entries.keys).union(old.entries.keys).sorted() {
            let inode = new.entries[name] == nil ? 0 : UInt64(try status(inner + "/new/" + name).st_ino)
            lines.append("\(inode) \(Data(name.utf8).base64EncodedString())")
        }
        try writeFile(inner + "/journal.tmp", Array((lines.joined(separator: "\n") + "\n").utf8), mode: 0o600)
        guard rename(inner + "/journal.tmp", inner + "/journal") == 0 else { throw systemError(inner + "/journal") }
        try synchronise(inner)
        try afterStep("journal written")
        try completeJournal()
    }

    private func completeJournal() throws {
        let text: String
        do {
            text = try String(contentsOf: URL(fileURLWithPath: inner + "/journal"), encoding: .utf8)
        } catch {
            throw HostsConfigurationError.file(path: inner + "/journal", reason: fileErrorReason(error))
        }
        if !exists(inner + "/old") { try makeDirectory(inner + "/old", mode: 0o700) }
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ")
            guard parts.count == 2, let inode = UInt64(parts[0]), let data = Data(base64Encoded: String(parts[1]))
            else {
                throw HostsConfigurationError.file(
                    path: inner + "/journal", reason: "is damaged; compare and remove \(inner) by hand")
            }
            try exchange(String(decoding: data, as: UTF8.self), inode: inode)
            try afterStep("entry exchanged")
        }
        try synchronise(path)
        guard unlink(inner + "/journal") == 0 else { throw systemError(inner + "/journal") }
        try afterStep("journal removed")
        try remove(inner)
        try afterStep("old removed")
    }

    /// Puts one entry into its place, once.
    private func exchange(_ name: String, inode: UInt64) throws {
        let place = path + "/" + name
        let staged = inner + "/new/" + name
        let current: UInt64? = (try? status(place)).map { UInt64($0.st_ino) }
        if inode == 0 {
            if current != nil, !exists(inner + "/old/" + name), rename(place, inner + "/old/" + name) != 0 {
                throw systemError(place)
            }
            return
        }
        guard current != inode else { return }
        if current != nil, node_exchange_paths(staged, place) == 0 { return }
        // Without an exchange the entry is absent for a moment; containerd then asks the upstream.
        if current != nil, rename(place, inner + "/old/" + name) != 0 { throw systemError(place) }
        guard rename(staged, place) == 0 else { throw systemError(place) }
    }

    private func write(_ tree: FileTree, to directory: String) throws {
        for (name, node) in tree.entries.sorted(by: { $0.key < $1.key }) {
            let place = directory + "/" + name
            switch node {
            case .file(let file):
                if let origin = file.origin {
                    if link(path + "/" + origin, place) == 0 { continue }
                    // A file system without hard links: a copy, with the owner where that is possible.
                    try copy(path + "/" + origin, to: place)
                } else {
                    try writeFile(place, file.bytes ?? [], mode: file.mode)
                }
            case .directory(let inner):
                try makeDirectory(place, mode: 0o700)
                try write(inner, to: place)
                guard chmod(place, mode_t(inner.mode ?? 0o755)) == 0 else { throw systemError(place) }
                try synchronise(place)
            case .link(let target, _):
                guard symlink(target, place) == 0 else { throw systemError(place) }
            case .other(let origin):
                guard link(path + "/" + origin, place) == 0 else { throw systemError(path + "/" + origin) }
            }
        }
    }

    private func copy(_ source: String, to place: String) throws {
        do {
            try FileManager.default.copyItem(atPath: source, toPath: place)
        } catch {
            throw HostsConfigurationError.file(path: source, reason: fileErrorReason(error))
        }
        try synchronise(place)
    }

    private func writeFile(_ place: String, _ bytes: [UInt8], mode: UInt32) throws {
        let descriptor = open(place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw systemError(place) }
        defer { close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { throw systemError(place) }
            written += count
        }
        guard fchmod(descriptor, mode_t(mode)) == 0, fsync(descriptor) == 0 else { throw systemError(place) }
    }

    private func makeDirectory(_ place: String, mode: mode_t, withParents: Bool = false) throws {
        if withParents, !exists(place.directoryPath) {
            try makeDirectory(place.directoryPath, mode: mode, withParents: true)
        }
        guard mkdir(place, mode) == 0 || errno == EEXIST else { throw systemError(place) }
    }

    private func synchronise(_ place: String) throws {
        let descriptor = open(place, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw systemError(place) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw systemError(place) }
    }

    private func remove(_ place: String) throws {
        do {
            try FileManager.default.removeItem(atPath: place)
        } catch {
            throw HostsConfigurationError.file(path: place, reason: fileErrorReason(error))
        }
    }

    /// Whether a tree is what is there already.
    private func isSame(_ new: FileTree, _ old: FileTree) -> Bool { exists(path) && new.content == old.content }

    private func systemError(_ path: String) -> HostsConfigurationError {
        .file(path: path, reason: String(cString: strerror(errno)))
    }
}

extension stat {
    fileprivate var mode: mode_t { st_mode }
}

extension FileTree.Node {
    /// Forgets where files stand, for those that are outside the directory.
    fileprivate mutating func dropOrigins() {
        switch self {
        case .file(var file):
            file.origin = nil
            self = .file(file)
        case .directory(var tree):
            for name in tree.entries.keys { tree.entries[name]?.dropOrigins() }
            self = .directory(tree)
        default:
            break
        }
    }
}

extension FileTree {
    /// The tree with what counts when two are compared: places, bytes and modes, not where they are taken from.
    fileprivate var content: FileTree {
        var result = FileTree(mode: mode ?? 0o755)
        for (name, node) in entries {
            switch node {
            case .file(var file):
                if file.bytes != nil { file.origin = nil }
                result.entries[name] = .file(file)
            case .directory(let tree): result.entries[name] = .directory(tree.content)
            case .link(let target, _): result.entries[name] = .link(target: target, content: nil)
            case .other: result.entries[name] = node
            }
        }
        return result
    }
}
