import ContentStore
import OCIDistribution
import RegistryClient

/// The pieces of a pulled image: size, time, where each came from, and what of it was verified.
package struct PullTable {
    private let report: PullReport
    private let verification: VerificationReport
    private let source: (PulledContent) -> String?

    /// - Parameter source: where a piece came from, when more is known than whom it was asked of.
    package init(
        _ report: PullReport, _ verification: VerificationReport,
        source: @escaping (PulledContent) -> String? = { _ in nil }
    ) {
        self.report = report
        self.source = source
        self.verification = verification
    }

    package var lines: [String] {
        let sound = Set(verification.blobs.filter { $0.outcome == .sound }.map(\.digest))
        var diffIDs: [Digest: Bool] = [:]
        for layer in verification.layers {
            diffIDs[layer.layer] = (diffIDs[layer.layer] ?? true) && layer.outcome == .sound
        }
        var table = Table([
            ("blob", .left), ("type", .left), ("size", .right), ("time", .right), ("source", .left),
            ("verified", .left),
        ])
        for content in report.contents {
            let digest = content.descriptor.digest
            var verified = [sound.contains(digest) ? "digest" : "BAD DIGEST"]
            if let isSound = diffIDs[digest] { verified.append(isSound ? "diffID" : "BAD DIFFID") }
            table.add([
                String(digest.hex.prefix(12)), content.role.rawValue, Quantity.bytes(content.descriptor.size),
                content.source == nil ? "-" : Quantity.time(content.duration),
                source(content) ?? content.source?.authority ?? "was there", verified.joined(separator: ", "),
            ])
        }
        let bytes = report.contents.reduce(Int64(0)) { $0 &+ $1.descriptor.size }
        let rate = Quantity.rate(bytes, in: report.duration)
        return table.lines + [
            "\(report.contents.count) pieces, \(Quantity.bytes(bytes)) in \(Quantity.time(report.duration)) (\(rate))"
        ]
    }
}
