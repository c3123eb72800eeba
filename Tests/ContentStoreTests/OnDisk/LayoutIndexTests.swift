import ContentStoreConformance
import Foundation
import OCIDistribution
import TestSupport
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

    private let index = LayoutIndex(path: "index.json", bareTags: nil)

    /// The entries of an index, and the problems; nil when it is refused.
    private func parse(_ bytes: [UInt8]) -> (entries: [LayoutIndex.Entry], problems: [String])? {
        var entries: [LayoutIndex.Entry] = []
        var problems: [String] = []
        do throws(ContentStoreError) {
            try index.forEachEntry(JSONReader(bytes)) { position, result in
                switch result {
                case .success(let entry): entries.append(entry)
                case .failure(let problem): problems.append("\(position)\(problem)")
                }
            }
        } catch {
            return nil
        }
        return (entries, problems)
    }

    /// A changed copy of an index, and whether it differs.
    private func apply(_ edit: LayoutIndex.Edit, to bytes: [UInt8]) throws -> (bytes: [UInt8], isChanged: Bool) {
        var copy: [UInt8] = []
        let isChanged = try index.apply(edit, to: JSONReader(bytes)) { copy += $0 }
        return (copy, isChanged)
    }

    @Test func aGoodOneIsParsed() throws {
        let (entries, problems) = try #require(parse(Array(Self.good.utf8)))
        #expect(problems == [])
        #expect(
            entries.map { $0.reference?.description } == [
                "r.test:5000/a/b:1", "docker.io/library/x@sha256:\(String(repeating: "ab", count: 32))",
            ])
        #expect(entries.map(\.descriptor.size) == [7, 1000])
    }

    /// Bytes changed, removed, doubled at random: it is refused, or parsed and changed without loss.
    @Test(arguments: 0..<8) func damagedOnesDoNoHarm(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 7919 &+ 5)
        let tokens = ["null", "-1", "1e999", "\"\\ud800\"", "[[[[", "}", "\"sha256:", "9223372036854775808", "\u{0}"]
        let name = try Reference(parsing: "r.test/new:1")
        let digest = Digest.hash(.sha256, of: [1])
        let target = Descriptor(mediaType: .imageManifest, digest: digest, size: 1)
        var accepted = 0
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
            guard let parsed = parse(bytes) else {
                #expect(throws: ContentStoreError.self) { try apply(.remove(name), to: bytes) }
                continue
            }
            accepted += 1
            // Every JSON parser accepts what this one does.
            #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(bytes)) }
            func summary(_ entries: [LayoutIndex.Entry]) -> [String] {
                entries.map { "\($0.descriptor) \($0.reference?.description ?? "")" }
            }
            let (set, isSet) = try apply(.set(name, target), to: bytes)
            let withName = try #require(parse(set))
            #expect(isSet && withName.entries.last?.reference == name)
            #expect(summary(withName.entries.dropLast()) == summary(parsed.entries))
            #expect(withName.problems == parsed.problems)
            let (removed, isRemoved) = try apply(.remove(name), to: set)
            #expect(isRemoved)
            #expect(summary(try #require(parse(removed)).entries) == summary(parsed.entries))
            #expect(try !apply(.remove(name), to: removed).isChanged)
        }
        #expect(accepted > 0)
    }

    @Test func valuesOfOthersAreCopiedAsTheyAre() throws {
        let name = try Reference(parsing: "r.test/new:1")
        let text =
            #"{ "a" : 1.50, "b\u00e9\"":[ {} , null ], "manifests" : [ { "x" : "\ud83d\ude00", "y":[] } ] , "c":""}"#
        let (set, _) = try apply(
            .set(name, Descriptor(mediaType: .imageManifest, digest: .hash(of: []), size: 0)), to: Array(text.utf8))
        let (removed, _) = try apply(.remove(name), to: set)
        #expect(
            String(decoding: removed, as: UTF8.self)
                == #"{"a":1.50,"bé\"":[ {} , null ],"manifests":[{ "x" : "\ud83d\ude00", "y":[] }],"c":""}"#)
    }

    @Test(arguments: [
        "", "  ", "{", "[]", "1", "{\"manifests\":{}}", "{\"manifests\":[}", "{\"manifests\":[1,]}", "{\"a\":01}",
        "{\"a\":1.}", "{\"a\":tru}", "{\"a\":\"\\x\"}", "{\"a\":\"\u{1}\"}", "{\"a\" 1}", "{} x",
        "{\"manifests\":[],\"manifests\":[]}",
        "{\"a\":" + String(repeating: "[", count: 100_000), "{\"a\":" + String(repeating: "{\"a\":", count: 1000),
    ])
    func whatIsNoIndexIsRefused(_ text: String) {
        #expect(parse(Array(text.utf8)) == nil)
    }

    @Test func deepElementsAreReadInOneLinearPass() throws {
        let deep = String(repeating: "[{\"a\":", count: 200) + "1" + String(repeating: "}]", count: 200)
        let text = #"{"manifests":[{"deep":\#(deep),"digest":"\#(Digest.hash(of: []))"}]}"#
        #expect(try #require(parse(Array(text.utf8))).entries.count == 1)
    }

    /// More than 4 MiB of names: they are read, one is added and removed, and all are removed again.
    @Test(.timeLimit(.minutes(20))) func aHundredThousandNames() async throws {
        let count = 100_000
        var sample = SampleContent(seed: 730)
        let layout = try Layout()
        let images = (0..<20).map { _ in sample.image() }
        for image in images { try layout.put(image) }
        let file = try #require(fopen("\(layout.path)/index.json", "w"))
        fputs(#"{"schemaVersion":2,"manifests":["#, file)
        for number in 0..<count {
            let target = images[number % images.count].manifest.descriptor
            fputs(
                #"\#(number == 0 ? "" : ","){"mediaType":"\#(target.mediaType)","digest":"\#(target.digest)","size":\#(target.size),"#
                    + #""annotations":{"org.opencontainers.image.ref.name":"r.test/repository-\#(number / 100):tag-\#(number)"}}"#,
                file)
        }
        fputs("]}", file)
        fclose(file)
        let store = try await layout.open()
        #expect(try await store.images().count == count)
        let first = try Reference(parsing: "r.test/repository-0:tag-0")
        #expect(try await store.resolve(first)?.digest == images[0].manifest.digest)
        // A new name is added beside the others.
        let new = try Reference(parsing: "r.test/new:1")
        try await store.tag(images[1].manifest.descriptor, as: new)
        #expect(try await store.resolve(new)?.digest == images[1].manifest.digest)
        try await store.untag(first)
        #expect(try await store.images().count == count)
        try layout.write(#"{"manifests":[]}"#, to: "index.json")
        try await eventually("no names are left", limit: .seconds(600)) { try await store.images().isEmpty }
        #expect(try await store.info(images[0].manifest.digest)?.sources == [])
    }
}
