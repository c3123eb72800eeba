import Foundation
import MirrorServer
import OCIDistribution
import RegistryClient
import SpegelCommands

/// One node of the demonstration: a daemon process on a loopback address of its own.
struct DemoNode: Sendable {
    /// Where it serves.
    var registry: ListenAddress
    /// Where it says what it does.
    var metrics: ListenAddress
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
            "registry", "--store", store, "--registry-addr", "\(registry)", "--metrics-addr",
            "\(metrics)", "--router-addr", "\(host):0", "--bootstrap-kind", "http", "--http-bootstrap-url",
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
                registry: ListenAddress(host: node.0, port: first.port),
                metrics: ListenAddress(host: node.0, port: first.port + 2), store: node.1, number: index + 1,
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

    /// What the daemon says of itself.
    ///
    /// - Throws: ``CommandFailure`` when it does not answer.
    func report() async throws -> NodeReport { try await NodeReport.fetch(from: metrics) }
}

extension TrafficSnapshot {
    /// The number of the last transfer that has started; 0 before the first.
    var lastTransfer: UInt64 { (transfers + recentTransfers).map(\.number).max() ?? 0 }

    /// Which peers gave content in the transfers after one, in the order of serving.
    ///
    /// - Parameter image: `registry/repository`; nil for any.
    func sources(of reference: String, image: String? = nil, after number: UInt64) -> [Source] {
        (recentTransfers + transfers).filter {
            $0.number > number && $0.reference == reference && (image == nil || $0.image == image)
        }.flatMap(\.sources)
    }
}
