import ContentStore
import OCIDistribution

/// The result of a verification in words: what is wrong, each in a line, and a count of everything.
package struct VerificationSummary {
    /// Lines about single things; beyond it they are only counted.
    private static let maximumLines = 200

    private let report: VerificationReport

    package init(_ report: VerificationReport) {
        self.report = report
    }

    package func lines(on terminal: Terminal) -> [String] {
        var faults: [String] = []
        for blob in report.blobs {
            if let fault = Self.fault(of: blob) { faults.append("\(terminal.red("bad"))   \(blob.digest): \(fault)") }
        }
        for layer in report.layers {
            switch layer.outcome {
            case .sound: break
            case .mismatch(let actual):
                let expected = layer.diffID?.description ?? "none"
                faults.append(
                    "\(terminal.red("bad"))   layer \(layer.layer) of \(layer.manifest): "
                        + "expected diffID \(expected), got \(actual)")
            case .damaged(let error):
                faults.append("\(terminal.red("bad"))   layer \(layer.layer) of \(layer.manifest): \(error)")
            case .unsupported(let compression):
                faults.append("note  layer \(layer.layer): diffID not checked, \(compression) is not supported")
            case .unchecked(let reason):
                faults.append("note  layer \(layer.layer): diffID not checked: \(reason)")
            }
        }
        let hidden = faults.count - Self.maximumLines
        var lines = Array(faults.prefix(Self.maximumLines))
        if hidden > 0 { lines.append("… and \(hidden) more") }
        lines.append(total(on: terminal))
        if !report.isRemembered {
            lines.append("note  the layout is read-only: another process does not know which blobs are bad")
        }
        return lines
    }

    private func total(on terminal: Terminal) -> String {
        let sound = report.blobs.filter { $0.outcome == .sound }
        let bytes = sound.reduce(Int64(0)) { $0 &+ $1.size }
        let layers = report.layers.filter { $0.outcome == .sound }.count
        let bad = report.blobs.count - sound.count
        let badLayers = report.layers.filter { layer in
            switch layer.outcome {
            case .mismatch, .damaged: true
            case .sound, .unsupported, .unchecked: false
            }
        }.count
        let unchecked = report.layers.count - layers - badLayers
        let verdict =
            if bad + badLayers > 0 {
                terminal.red("\(bad + badLayers) bad")
            } else if unchecked > 0 {
                "\(unchecked) diffIDs not checked"
            } else {
                terminal.green("sound")
            }
        return "\(sound.count) blobs (\(Quantity.bytes(bytes))) and \(layers) diffIDs match: \(verdict)"
    }

    private static func fault(of blob: BlobVerdict) -> String? {
        switch blob.outcome {
        case .sound: nil
        case .truncated(let expected): "\(blob.size) bytes, expected \(expected)"
        case .altered(let actual): "its bytes have the digest \(actual)"
        case .missing: "missing"
        case .unreadable(let reason): reason
        }
    }
}
