import Foundation
import MirrorServer
import OCIDistribution
import RegistryClient
import SpegelCommands

/// One node of the demonstration: a daemon process on a loopback address of its own.
struct DemoNode: Sendable {
    /// Where it serves.
    var registry: ListenAddress
    /// What it has: an OCI image layout.
    var store: String
    /// Its number, from 1.
    var number: Int
    /// Where the first peers are asked for, which is what the first node serves.
    var bootstrap: ListenAddress
    var logPath: String

    var host: String { registry.host ?? "" }
    var endpoint: RegistryEndpoint { RegistryEndpoint(authority: "\(registry)") }

    /// The arguments of its daemon.
    var arguments: [String] {
        var arguments = [
            "--log-level", "DEBUG", "registry", "--store", store, "--registry-addr", "\(registry)", "--metrics-addr",
            "\(host):0", "--router-addr", "\(host):0", "--bootstrap-kind", "http", "--http-bootstrap-url",
            "http://\(bootstrap)/id",
            // Three nodes and a pull keep a small machine busier than the usual 20 ms for a lookup allow for.
            "--mirror-resolve-timeout", "2s",
        ]
        if number == 1 { arguments += ["--http-bootstrap-addr", "\(bootstrap)"] }
        return arguments
    }

    /// As many nodes as there are stores, on consecutive addresses.
    static func nodes(from first: ListenAddress, stores: [String], logDirectory: String) -> [DemoNode] {
        let hosts = consecutiveHosts(first.host ?? "", count: stores.count) ?? []
        let bootstrap = ListenAddress(host: first.host, port: first.port + 1)
        return zip(hosts, stores).enumerated().map { index, node in
            DemoNode(
                registry: ListenAddress(host: node.0, port: first.port), store: node.1, number: index + 1,
                bootstrap: bootstrap, logPath: "\(logDirectory)/node\(index + 1).log")
        }
    }

    /// An IPv4 loopback address and those after it; nil when it is none, or there are not as many.
    static func consecutiveHosts(_ first: String, count: Int) -> [String]? {
        let parts = first.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard parts.count == 4, parts[0] == 127, parts.allSatisfy({ $0 != nil }), let last = parts[3],
            Int(last) + count <= 255
        else { return nil }
        let prefix = first.split(separator: ".").prefix(3).joined(separator: ".")
        return (0..<count).map { "\(prefix).\(Int(last) + $0)" }
    }

    /// How long its log is, for ``sources(of:since:)``.
    var logSize: UInt64 {
        let attributes = try? FileManager.default.attributesOfItem(atPath: logPath)
        return (attributes?[.size] as? UInt64) ?? 0
    }

    /// From which peers content came to this node, as its log tells from a place on: the address, and the offset from
    /// which on, in the order of serving.
    ///
    /// - Parameter key: the digest, or the name with its tag.
    func sources(of key: String, since: UInt64) -> [(host: String, offset: Int64)] {
        guard let log = try? Data(contentsOf: URL(fileURLWithPath: logPath)) else { return [] }
        return log.dropFirst(Int(clamping: since)).split(separator: UInt8(ascii: "\n")).compactMap { line in
            guard let fields = try? JSONDecoder().decode([String: LogValue].self, from: Data(line)),
                fields["msg"] == .text("a peer serves"), fields["key"] == .text(key),
                case .text(let peer)? = fields["peer"], case .text(let offset)? = fields["offset"],
                let host = ListenAddress(peer)?.host
            else { return nil }
            return (host, Int64(offset) ?? 0)
        }
    }

    /// A field of a log line, as far as it is looked at.
    private enum LogValue: Decodable, Equatable {
        case text(String)
        case other

        init(from decoder: any Decoder) throws {
            let text = try? decoder.singleValueContainer().decode(String.self)
            self = text.map { .text($0) } ?? .other
        }
    }
}
