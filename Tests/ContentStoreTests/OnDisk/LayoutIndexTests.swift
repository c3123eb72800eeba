import OCIDistribution
import Testing

@testable import ContentStore

@Suite struct LayoutIndexTests {
    private static let good = """
        {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":\
        "application/vnd.oci.image.manifest.v1+json","digest":"sha256:\(String(repeating: "ab", count: 32))","size":7,\
        "annotations":{"org.opencontainers.image.ref.name":"r.test:5000/a/b:1","x":"y"}},{"digest":\
        "sha512:\(String(repeating: "0", count: 128))","size":1e3,"annotations":{"io.containerd.image.name":\
        "docker.io/library/x@sha256:\(String(repeating: "ab", count: 32))"}}]}
        """

    private func parse(_ bytes: [UInt8]) -> LayoutIndex? {
        try? LayoutIndex(parsing: bytes, path: "index.json", bareTags: nil)
    }

    @Test func aGoodOneIsUnderstood() throws {
        let index = try #require(parse(Array(Self.good.utf8)))
        let (entries, problems) = index.entries()
        #expect(problems == [])
        #expect(
            entries.map { $0.reference?.description } == [
                "r.test:5000/a/b:1", "docker.io/library/x@sha256:\(String(repeating: "ab", count: 32))",
            ])
        #expect(entries.map(\.descriptor.size) == [7, 1000])
    }

    /// Bytes changed, removed, doubled at random: it is refused or parsed, written again it is the same, and it
    /// can still be changed.
    @Test(arguments: 0..<8) func damagedOnesDoNoHarm(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 7919 &+ 5)
        let tokens = ["null", "-1", "1e999", "\"\\ud800\"", "[[[[", "}", "\"sha256:", "9223372036854775808", "\u{0}"]
        let name = try Reference(parsing: "r.test/new:1")
        let digest = Digest.hash(.sha256, of: [1])
        let target = Descriptor(mediaType: .imageManifest, digest: digest, size: 1)
        var understood = 0
        for _ in 0..<400 {
            var bytes = Array(Self.good.utf8)
            for _ in 0...(random.next() % 3) {
                let start = Int(random.next() % UInt64(bytes.count))
                let end = min(bytes.count, start + Int(random.next() % 12))
                switch random.next() % 4 {
                case 0: bytes[start] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.removeSubrange(start..<end)
                case 2: bytes.insert(contentsOf: bytes[start..<end], at: start)
                default:
                    bytes.replaceSubrange(
                        start..<end, with: Array(tokens[Int(random.next() % UInt64(tokens.count))].utf8))
                }
                if bytes.isEmpty { bytes = [0] }
            }
            guard var index = parse(bytes) else { continue }
            understood += 1
            func summary(_ index: LayoutIndex) -> [String] {
                index.entries().entries.map { "\($0.descriptor) \($0.reference?.description ?? "")" }
            }
            let again = try #require(parse(try index.encoded()))
            #expect(summary(again) == summary(index))
            index.set(name, to: target)
            #expect(index.entries().entries.last?.reference == name)
            let isRemoved = index.remove(name)
            #expect(isRemoved)
            #expect(index.entries().entries.allSatisfy { $0.reference != name })
        }
        #expect(understood > 0)
    }
}
