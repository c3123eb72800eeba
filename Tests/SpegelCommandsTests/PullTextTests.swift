import OCIDistribution
import Testing

@testable import ContentStore
@testable import RegistryClient
@testable import SpegelCommands

/// What `pull` and `verify` say in the end.
@Suite struct PullTextTests {
    private let terminal = Terminal(isInteractive: false, width: 80, sink: Silent())
    private let digest = Digest.hash(of: [1])

    private struct Silent: LogSink {
        func write(line: [UInt8]) {}
    }

    private func total(_ outcomes: [LayerVerdict.Outcome]) -> String {
        let layers = outcomes.map { LayerVerdict(manifest: digest, layer: digest, diffID: digest, outcome: $0) }
        let blob = BlobVerdict(digest: digest, size: 1, isReferenced: true, outcome: .sound)
        let report = VerificationReport(blobs: [blob], layers: layers, isRemembered: true)
        return VerificationSummary(report).lines(on: terminal).last ?? ""
    }

    /// Only what was checked is sound.
    @Test func soundMeansThatEveryDiffIDWasChecked() {
        #expect(total([.sound]).hasSuffix(": sound"))
        #expect(total([]).hasSuffix(": sound"))
        #expect(total([.sound, .unchecked("no config")]).hasSuffix(": 1 diffIDs not checked"))
        #expect(total([.unsupported("zstd")]).hasSuffix(": 1 diffIDs not checked"))
        #expect(total([.unchecked("no config"), .mismatch(actual: digest)]).hasSuffix(": 1 bad"))
    }

    /// What was left out is named, and what the index says cannot command the terminal.
    @Test func omissionsAreNamed() throws {
        func omission(_ reason: PullOmission.Reason, _ platform: Platform? = nil, urls: [String]? = nil) -> PullOmission
        {
            PullOmission(
                descriptor: Descriptor(mediaType: .layer, digest: digest, size: 5, urls: urls, platform: platform),
                reason: reason)
        }
        let report = PullReport(
            reference: try Reference(parsing: "docker.io/library/demo:1.0"),
            target: Descriptor(mediaType: .imageIndex, digest: digest, size: 1), contents: [],
            omissions: [
                omission(.otherPlatform, Platform(architecture: "arm64", os: "linux\u{1b}[2J")),
                omission(.absent), omission(.incomplete(absent: 2)), omission(.foreign, urls: ["https://a.example/l"]),
            ], duration: .seconds(1))
        let verification = VerificationReport(blobs: [], layers: [], isRemembered: true)
        let lines = PullTable(report, verification).lines.suffix(4)
        #expect(lines.allSatisfy { $0.hasPrefix("note  not pulled: ") && $0.utf8.allSatisfy { $0 >= 0x20 } })
        for (line, word) in zip(lines, ["linux[2J/arm64", "does not have it", "lacks 2", "https://a.example/l"]) {
            #expect(line.contains(word), "\(line)")
        }
    }
}
