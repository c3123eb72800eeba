import OCIDistribution
import Testing

@Suite struct DigestHasherTests {
    @Test func hashesKnownVectors() {
        #expect(Digest.hash(of: []).description == DigestTests.emptySHA256)
        #expect(Digest.hash(.sha512, of: "abc".utf8).description == DigestTests.abcSHA512)
        #expect(
            Digest.hash(of: Array("abc".utf8)).hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
        // FIPS 180-2, appendix B.3.
        var hasher = DigestHasher(.sha256)
        let piece = [UInt8](repeating: 0x61, count: 1000)
        for _ in 0..<1000 { hasher.update(piece) }
        #expect(hasher.finalize().hex == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    @Test(arguments: DigestAlgorithm.allCases)
    func copiesGoTheirOwnWays(algorithm: DigestAlgorithm) {
        var first = DigestHasher(algorithm)
        first.update("ab".utf8)
        var second = first.copy()
        first.update("c".utf8)
        second.update("d".utf8)
        let untouched = second.copy()
        second.update("e".utf8)
        #expect(first.finalize() == Digest.hash(algorithm, of: "abc".utf8))
        #expect(second.finalize() == Digest.hash(algorithm, of: "abde".utf8))
        #expect(untouched.finalize() == Digest.hash(algorithm, of: "abd".utf8))
    }

    @Test(arguments: DigestAlgorithm.allCases, 0..<3 as Range<UInt64>)
    func doesNotDependOnTheChunks(algorithm: DigestAlgorithm, seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<20 {
            let content = generator.bytes(generator.below(2000))
            let whole = Digest.hash(algorithm, of: content)
            var hasher = DigestHasher(algorithm)
            var rest = content[...]
            while !rest.isEmpty {
                let count = generator.below(rest.count + 1)
                if generator.below(2) == 0 {
                    hasher.update(rest.prefix(count))
                } else {
                    Array(rest.prefix(count)).withUnsafeBytes { hasher.update($0) }
                }
                rest = rest.dropFirst(count)
            }
            #expect(hasher.finalize() == whole)
            #expect(content.withUnsafeBytes { Digest.hash(algorithm, of: $0) } == whole)
            #expect(Digest.hash(algorithm, of: content.lazy.map { $0 }) == whole)
        }
    }

    @Test func manyHashersRunAtOnce() async {
        let expected = Digest.hash(of: [UInt8](repeating: 7, count: 100_000))
        await withTaskGroup(of: Digest.self) { group in
            for _ in 0..<32 {
                group.addTask {
                    var hasher = DigestHasher(.sha256)
                    for _ in 0..<100 { hasher.update([UInt8](repeating: 7, count: 1000)) }
                    return hasher.finalize()
                }
            }
            for await digest in group { #expect(digest == expected) }
        }
    }
}

@Suite struct DigestVerifierTests {
    static let content = Array("some content".utf8)
    static let digest = Digest.hash(of: content)

    private func verify(_ chunks: [[UInt8]], digest: Digest = digest, size: Int64?) throws(VerificationError) -> Int64 {
        var verifier = DigestVerifier(expected: digest, size: size)
        for chunk in chunks { try verifier.update(chunk) }
        let received = verifier.received
        try verifier.finish()
        return received
    }

    @Test func acceptsTheContent() throws {
        #expect(try verify([Self.content], size: 12) == 12)
        #expect(try verify([Self.content], size: nil) == 12)
        #expect(try verify(Self.content.map { [$0] } + [[]], size: 12) == 12)
        #expect(try verify([], digest: .hash(of: []), size: 0) == 0)
    }

    @Test func findsTooMuchBeforeTheEnd() {
        var verifier = DigestVerifier(expected: Self.digest, size: 5)
        #expect(throws: VerificationError.tooLong(digest: Self.digest, expectedSize: 5, received: 12)) {
            try verifier.update(Self.content)
        }
        #expect(verifier.received == 0)
        #expect(throws: VerificationError.tooLong(digest: Self.digest, expectedSize: 5, received: 6)) {
            try verifier.update(Self.content.prefix(3))
            try verifier.update(Self.content.lazy.map { $0 }.prefix(3))
        }
    }

    @Test func saysWhatWasExpectedAndGot() {
        #expect(throws: VerificationError.tooShort(digest: Self.digest, expectedSize: 13, received: 12)) {
            try verify([Self.content], size: 13)
        }
        let other = Digest.hash(of: "other".utf8)
        #expect { try verify([Self.content], digest: other, size: nil) } throws: { error in
            error as? VerificationError == .digestMismatch(expected: other, actual: Self.digest, size: 12)
                && "\(error)".contains("\(other)") && "\(error)".contains("\(Self.digest)")
        }
        // The size is right, the algorithm another.
        #expect(throws: VerificationError.self) { try verify([Self.content], digest: .hash(.sha512, of: []), size: 12) }
    }
}
