import Foundation
import Testing

@testable import OCIDistribution

@Suite struct DigestTests {
    static let emptySHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    static let abcSHA512 =
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        + "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

    static func random(_ generator: inout SeededGenerator) throws -> Digest {
        let algorithm = generator.pick(DigestAlgorithm.allCases)
        return try #require(Digest(algorithm: algorithm, bytes: generator.bytes(algorithm.byteCount)))
    }

    @Test(arguments: [emptySHA256, abcSHA512]) func roundTrips(text: String) throws {
        let digest = try Digest(parsing: text)
        #expect(digest.description == text)
        #expect(digest.hex == text.dropFirst(7))
        #expect(Digest(algorithm: digest.algorithm, bytes: digest.bytes) == digest)
        #expect(Digest(algorithm: digest.algorithm, bytes: digest.bytes.lazy.map { $0 }) == digest)
        #expect(try Digest(parsing: "x\(text)y".dropFirst().dropLast()) == digest)
        // A string that does not store its UTF-8 contiguously.
        #expect(try Digest(parsing: NSString(string: text) as String) == digest)
    }

    @Test func isCompact() {
        #expect(MemoryLayout<Digest>.stride <= 40)
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func randomDigestsRoundTrip(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var digests: Set<Digest> = []
        for _ in 0..<500 {
            let digest = try Self.random(&generator)
            let text = digest.description
            #expect(try Digest(parsing: text) == digest)
            #expect(Digest(algorithm: digest.algorithm, bytes: digest.bytes) == digest)
            #expect(digest.hex.utf8.count == digest.algorithm.byteCount * 2)
            #expect(digest.hex == digest.bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined())
            let json = try JSONEncoder().encode([digest])
            #expect(String(decoding: json, as: UTF8.self) == "[\"\(text)\"]")
            #expect(try JSONDecoder().decode([Digest].self, from: json) == [digest])
            digests.insert(digest)
            #expect(digests.contains(try Digest(parsing: text)))
        }
        #expect(digests.count == 500)
        #expect(digests.sorted().map(\.description) == digests.map(\.description).sorted())
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func ordersByEveryWord(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let left = try Self.random(&generator)
            var bytes = left.bytes
            bytes[generator.below(bytes.count)] = UInt8.random(in: 0...255, using: &generator)
            let right = try #require(Digest(algorithm: left.algorithm, bytes: bytes))
            #expect((left < right) == (left.description < right.description))
            #expect((left == right) == (left.description == right.description))
        }
    }

    /// Whatever is parsed is what a regular expression of the specification's grammar accepts.
    @Test(arguments: 0..<4 as Range<UInt64>) func agreesWithTheGrammar(seed: UInt64) throws {
        let grammar = try Regex("[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
        let registered = try Regex("sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
        let alphabet = Array("abcdef0123456789:+._-=gGAF/ \u{0}é".utf8)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<1500 {
            let start = generator.pick([Self.emptySHA256, Self.abcSHA512, "sha384:ab", "a+b:c", ""])
            let text = String(decoding: generator.mutate(Array(start.utf8), alphabet: alphabet), as: UTF8.self)
            do {
                let digest = try Digest(parsing: text)
                #expect(text.wholeMatch(of: registered) != nil, "seed \(seed): \(text)")
                #expect(digest.description == text)
            } catch DigestError.unsupportedAlgorithm {
                #expect(text.wholeMatch(of: grammar) != nil, "seed \(seed): \(text)")
                #expect(!text.hasPrefix("sha256:") && !text.hasPrefix("sha512:"))
            } catch DigestError.malformed {
                let mustParse = text.wholeMatch(of: registered) != nil
                let isOther =
                    text.wholeMatch(of: grammar) != nil && !text.hasPrefix("sha256:") && !text.hasPrefix("sha512:")
                #expect(!mustParse && !isOther, "seed \(seed): \(text)")
            }
        }
    }

    @Test func namesTheInputAndTheFault() {
        let upper = Self.emptySHA256.replacingOccurrences(of: "e3b0", with: "E3B0")
        let faults = [
            ("", "no colon"), ("sha256", "no colon"), (":abc", "algorithm must be"),
            ("SHA256:abc", "algorithm must be"),
            ("sha256:", "encoded portion"), ("sha256:a b", "encoded portion"), ("sha256:abc", "needs 64"),
            (upper, "lower-case"), (String(repeating: "a", count: 2000), "longer than 1024"),
            ("a..b:c", "algorithm must be"),
            ("a.:c", "algorithm must be"), ("sha512:" + String(repeating: "a", count: 64), "needs 128"),
        ]
        for (text, reason) in faults {
            #expect { try Digest(parsing: text) } throws: { error in
                "\(error)".contains(reason) && (text.isEmpty || "\(error)".contains(text.prefix(100)))
                    && "\(error)".utf8.count < 400
            }
            #expect(Digest(text) == nil)
        }
    }

    @Test func doesNotLetControlCharactersIntoMessages() {
        #expect { try Digest(parsing: "sha256:\u{1B}[31m\n\"") } throws: { error in
            "\(error)".contains(#""sha256:\x1b[31m\x0a\"""#)
        }
    }

    @Test(arguments: ["sha384:abc", "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", "md5:a=_-Z"])
    func namesUnsupportedAlgorithms(text: String) {
        #expect { try Digest(parsing: text) } throws: { error in
            guard case DigestError.unsupportedAlgorithm(let algorithm, _) = error else { return false }
            return text.hasPrefix(algorithm.dropFirst().dropLast())
        }
    }

    @Test func refusesHashesOfAnotherLength() {
        #expect(Digest(algorithm: .sha256, bytes: [UInt8](repeating: 0, count: 31)) == nil)
        #expect(Digest(algorithm: .sha256, bytes: [UInt8](repeating: 0, count: 64)) == nil)
        #expect(Digest(algorithm: .sha512, bytes: [UInt8](repeating: 0, count: 32)) == nil)
    }
}
