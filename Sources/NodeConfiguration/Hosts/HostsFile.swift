/// A `hosts.toml` of containerd that asks mirrors first, as the Go original writes it.
///
/// The format is containerd's: https://github.com/containerd/containerd/blob/main/docs/hosts.md
package struct HostsFile: Hashable, Sendable {
    /// The registry asked when no mirror has the content; nil in the file for all registries.
    package var server: String?
    /// The mirrors, as `http(s)://host[:port]`, in the order in which they are asked.
    package var targets: [String]
    /// Whether mirrors resolve tags too.
    package var resolvesTags: Bool
    /// The value of the `Authorization` header sent to mirrors.
    package var authorization: String?

    package init(server: String?, targets: [String], resolvesTags: Bool, authorization: String? = nil) {
        self.server = server
        self.targets = targets
        self.resolvesTags = resolvesTags
        self.authorization = authorization
    }

    /// The time that containerd waits for a connection to a mirror.
    private static let dialTimeout = "200ms"

    /// The text of the file.
    ///
    /// - Parameter existing: Host tables that follow the mirrors, as ``existingHosts(in:)`` gives them.
    package func text(followedBy existing: String? = nil) -> String {
        var blocks: [String] = []
        if let server { blocks.append("server = \(TOMLValue.stringText(server))") }
        let capabilities = resolvesTags ? "['pull', 'resolve']" : "['pull']"
        for target in targets {
            let name = TOMLDocument.keyText(["host", target], quote: "'")
            var lines = ["[\(name)]", "capabilities = \(capabilities)", "dial_timeout = '\(Self.dialTimeout)'"]
            if let authorization {
                lines += ["[\(name).header]", "Authorization = \(TOMLValue.stringText(authorization))"]
            }
            blocks.append(lines.joined(separator: "\n"))
        }
        if let existing, !existing.isEmpty { blocks.append(existing) }
        return blocks.joined(separator: "\n\n") + "\n"
    }

    /// The host tables of a file that an operator wrote, in the file's order, in the form in which they are prepended to.
    ///
    /// - Returns: Nil when the file has no host.
    /// - Throws: ``TOMLError``.
    package static func existingHosts(in bytes: [UInt8]) throws(TOMLError) -> String? {
        let document = try TOMLDocument(parsing: bytes)
        guard let hosts = document.root[["host"]]?.table, !hosts.isEmpty else { return nil }
        // containerd tries them in the order of their tables; one that only has tables below it comes at the first of them.
        var order: [String] = []
        for header in document.headers where header.path.count == 2 && header.path[0] == "host" {
            order.append(header.path[1])
        }
        for header in document.headers where header.path.count > 2 && header.path[0] == "host" {
            if !order.contains(header.path[1]) { order.append(header.path[1]) }
        }
        for assignment in document.assignments where assignment.path.count > 1 && assignment.path[0] == "host" {
            if !order.contains(assignment.path[1]) { order.append(assignment.path[1]) }
        }
        order += hosts.keys.filter { !order.contains($0) }.sorted()
        let blocks = order.compactMap { name in
            hosts[name]?.table.map { TOMLValue.tableLines($0, path: ["host", name]).joined(separator: "\n") }
        }
        return blocks.joined(separator: "\n\n")
    }

    /// The text of a file that was generated and edited since, without the mirrors: they go by the timeout that only generated
    /// tables have, or by their names in other files.
    ///
    /// - Parameters:
    ///   - bytes: The file.
    ///   - mirrors: The hosts of unedited generated files.
    ///   - backup: The operator's file that it may have been prepended to; its hosts are no mirrors.
    /// - Returns: The bytes as they are when they have no mirror; nil when nothing but the mirrors and the upstream is in them.
    package static func withoutMirrors(_ bytes: [UInt8], mirrors: Set<String>, backup: [UInt8]?) -> [UInt8]? {
        guard let document = try? TOMLDocument(parsing: bytes), let hosts = document.root[["host"]]?.table else {
            return bytes
        }
        let former = backup.flatMap { try? TOMLValue(parsing: String(decoding: $0, as: UTF8.self)) }
        let operatorHosts = Set(former?[["host"]]?.table?.keys.map(\.self) ?? [])
        let found = hosts.filter { name, table in
            !operatorHosts.contains(name)
                && (mirrors.contains(name) || table[["dial_timeout"]]?.string == Self.dialTimeout)
        }.keys
        guard !found.isEmpty else { return bytes }
        var rest: [UInt8] = []
        var position = 0
        for (index, header) in document.headers.enumerated()
        where header.path.count >= 2 && header.path[0] == "host" && found.contains(header.path[1]) {
            rest += bytes[position..<header.line.lowerBound]
            position = index + 1 < document.headers.count ? document.headers[index + 1].line.lowerBound : bytes.count
        }
        rest += bytes[position...]
        guard let left = try? TOMLDocument(parsing: rest), let table = left.root.table else { return nil }
        let remaining = table["host"]?.table ?? [:]
        // Tables written in another way, such as inline ones, cannot be cut out: the file is left out as a whole.
        guard remaining.keys.allSatisfy({ !found.contains($0) }) else { return nil }
        return remaining.isEmpty && table.keys.allSatisfy { $0 == "server" || $0 == "host" } ? nil : rest
    }

    /// The hosts of a generated file that are mirrors; empty for a file of another kind.
    package static func mirrors(in bytes: [UInt8], backup: [UInt8]?) -> Set<String> {
        guard isGenerated(bytes, backup: backup), let root = try? TOMLDocument(parsing: bytes).root else { return [] }
        let hosts = root[["host"]]?.table ?? [:]
        return Set(hosts.filter { $0.value[["dial_timeout"]]?.string == Self.dialTimeout }.keys)
    }

    /// Whether a file is one that this program or the Go original wrote, unchanged since.
    ///
    /// - Parameters:
    ///   - bytes: The file.
    ///   - backup: The operator's file that it may have been prepended to.
    package static func isGenerated(_ bytes: [UInt8], backup: [UInt8]?) -> Bool {
        guard let document = try? TOMLDocument(parsing: bytes), let hosts = document.root[["host"]]?.table else {
            return false
        }
        let order = document.headers.filter { $0.path.count == 2 && $0.path[0] == "host" }.map { $0.path[1] }
        let existing = backup.flatMap { try? existingHosts(in: $0) }
        // The mirrors are a prefix of the hosts: try each length.
        for count in stride(from: order.count, through: 1, by: -1) {
            let targets = Array(order.prefix(count))
            guard let first = hosts[targets[0]] else { continue }
            let file = HostsFile(
                server: document.root[["server"]]?.string, targets: targets,
                resolvesTags: first[["capabilities"]]?.array?.contains(.string("resolve")) ?? false,
                authorization: first[["header", "Authorization"]]?.string)
            for candidate in [file.text(), file.text(followedBy: existing)] where isSame(candidate, bytes) {
                return true
            }
        }
        return false
    }

    /// Whether two texts are the same but for white space.
    private static func isSame(_ text: String, _ bytes: [UInt8]) -> Bool {
        func words(_ bytes: some Sequence<UInt8>) -> [UInt8] {
            bytes.filter { $0 != 0x20 && $0 != 0x09 && $0 != 0x0a && $0 != 0x0d }
        }
        return words(text.utf8) == words(bytes)
    }
}
