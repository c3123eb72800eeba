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
        let notes = omissionNotes
        let bytes = report.contents.reduce(Int64(0)) { $0 &+ $1.descriptor.size }
        let rate = Quantity.rate(bytes, in: report.duration)
        return table.lines + [
            "\(report.contents.count) pieces, \(Quantity.bytes(bytes)) in \(Quantity.time(report.duration)) (\(rate))"
        ] + notes
    }

    /// Most lines about what was left out; beyond it they are counted.
    private static let maximumNotes = 50

    /// What of the image was not pulled, and why.
    private var omissionNotes: [String] {
        let lines = report.omissions.map { omission -> String in
            let digest = omission.descriptor.digest.hex.prefix(12)
            let named =
                omission.descriptor.platform.map { "\(printableASCII($0.description)) (\(digest))" } ?? "\(digest)"
            return switch omission.reason {
            case .otherPlatform: "note  not pulled: \(named), another platform; see --all-platforms"
            case .absent: "note  not pulled: \(named), the server does not have it"
            case .incomplete(let count): "note  not pulled: \(named), the server lacks \(count) of its pieces"
            case .foreign:
                "note  not pulled: layer \(digest) (\(Quantity.bytes(omission.descriptor.size))), a foreign layer, "
                    + "which is not distributed with images" + Self.place(of: omission.descriptor)
            }
        }
        let hidden = lines.count - Self.maximumNotes
        return lines.prefix(Self.maximumNotes) + (hidden > 0 ? ["note  … and \(hidden) more"] : [])
    }

    /// Where a foreign layer's manifest says that it is, without what a terminal would take for a command.
    private static func place(of descriptor: Descriptor) -> String {
        guard let url = descriptor.urls?.first else { return "" }
        return "; its manifest names " + printableASCII(url, limit: 200)
    }
}
