import Testing

@testable import OCIDistribution

@Suite struct DiffIDHasherTests {
    private func run(
        _ bytes: [UInt8], chunk: Int = .max, limits: LayerLimits = .init()
    ) throws(LayerError) -> DiffIDHasher.Result {
        var hasher = DiffIDHasher(limits: limits)
        var rest = bytes[...]
        while !rest.isEmpty {
            try hasher.update(Array(rest.prefix(chunk)))
            rest = rest.dropFirst(chunk)
        }
        return try hasher.finish()
    }

    /// Compressible and incompressible parts, of every size around zlib's and our buffers.
    private static func content(_ size: Int, seed: UInt64 = 1) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        var bytes: [UInt8] = []
        while bytes.count < size {
            if generator.below(2) == 0 {
                bytes += generator.bytes(min(size - bytes.count, 700))
            } else {
                bytes += [UInt8](repeating: 0x41, count: min(size - bytes.count, 5000))
            }
        }
        return bytes
    }

    @Test(arguments: [0, 1, 3, 4, 5, 1000, 131_071, 131_072, 131_073, 262_144, 400_000])
    func findsTheDiffID(size: Int) throws {
        let content = Self.content(size)
        let diffID = Digest.hash(of: content)
        #expect(try run(content) == .init(diffID: diffID, uncompressedSize: Int64(size), compression: .none))
        for level in [0, 1, 9] as [Int32] {
            let compressed = try gzip(content, level: level)
            for chunk in [1, 2, 3, 5, 100, 65_536, .max] where chunk > 100 || size <= 1000 {
                let result = try run(compressed, chunk: chunk)
                #expect(result == .init(diffID: diffID, uncompressedSize: Int64(size), compression: .gzip))
            }
        }
    }

    @Test func theFirstBytesMayComeOneByOne() throws {
        for content in [[], [0x1F], [0x28, 0xB5], [0x28, 0xB5, 0x2F], [0, 1, 2, 3], [1, 2, 3, 4, 5]] as [[UInt8]] {
            #expect(try run(content, chunk: 1).diffID == Digest.hash(of: content))
        }
        #expect(throws: LayerError.truncatedGzip(size: 2)) { try run([0x1F, 0x8B], chunk: 1) }
    }

    @Test(arguments: [1, 2, 7, 1000, .max]) func takesSeveralMembers(chunk: Int) throws {
        let parts = [Self.content(500), [], Self.content(3, seed: 2), Self.content(131_072, seed: 3), []]
        let bytes = try parts.flatMap { try gzip($0) }
        let result = try run(bytes, chunk: chunk)
        #expect(result.diffID == Digest.hash(of: parts.flatMap { $0 }))
        #expect(result.uncompressedSize == 131_575)
    }

    /// A header with all optional fields, as RFC 1952 §2.3 has them.
    @Test func takesAllHeaderFields() throws {
        let plain = try gzip(Array("hello".utf8))
        let header: [UInt8] =
            [0x1F, 0x8B, 8, 0x1C, 1, 2, 3, 4, 0, 255, 3, 0, 9, 9, 9] + "name\0".utf8 + "comment\0".utf8
        #expect(try run(header + plain[10...]).diffID == Digest.hash(of: "hello".utf8))
    }

    @Test(arguments: [1, 10, .max]) func findsTruncationAtEveryByte(chunk: Int) throws {
        let compressed = try gzip(Self.content(300))
        for end in 2..<compressed.count {
            #expect(throws: LayerError.truncatedGzip(size: Int64(end))) {
                try run(Array(compressed[..<end]), chunk: chunk)
            }
        }
        // In a second member as well.
        for end in 1..<compressed.count {
            #expect(throws: LayerError.truncatedGzip(size: Int64(compressed.count + end))) {
                try run(compressed + compressed[..<end], chunk: chunk)
            }
        }
    }

    @Test(arguments: [1, 3, .max]) func findsTrailingGarbage(chunk: Int) throws {
        let compressed = try gzip(Self.content(300))
        for garbage in [[0x1F], [0, 0, 7], [0x1F, 0], Array("garbage".utf8), [0x1F, 0x8B, 7, 7]] as [[UInt8]] {
            #expect { try run(compressed + garbage, chunk: chunk) } throws: { error in
                switch error as? LayerError {
                case .trailingGarbage(let offset): (compressed.count...(compressed.count + 4)).contains(Int(offset))
                // One byte is too few to detect the compression.
                case .truncatedGzip(let size): garbage.count == 1 && Int(size) == compressed.count + 1
                default: false
                }
            }
        }
    }

    @Test(arguments: [1, 7, 100_000]) func zerosAfterTheLastMemberAreIgnored(chunk: Int) throws {
        let content = Self.content(3000, seed: 9)
        let compressed = try gzip(content)
        for count in [1, 2, 511] {
            let result = try run(compressed + [UInt8](repeating: 0, count: count), chunk: chunk)
            #expect(result.diffID == Digest.hash(of: content))
        }
        #expect(throws: LayerError.trailingGarbage(offset: Int64(compressed.count + 2))) {
            try run(compressed + [0, 0] + compressed, chunk: chunk)
        }
    }

    /// Damage is an error, or touched only bits that mean nothing: other content is never taken for good.
    @Test(arguments: 0..<4 as Range<UInt64>) func findsDamage(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let content = Self.content(2000, seed: seed)
        let diffID = Digest.hash(of: content)
        let compressed = try gzip(content)
        var errors = 0
        for _ in 0..<300 {
            var damaged = compressed
            let place = 10 + generator.below(compressed.count - 10)
            damaged[place] ^= 1 << UInt8(generator.below(8))
            do {
                let result = try run(damaged, chunk: 1 + generator.below(500))
                #expect(result.diffID == diffID, "seed \(seed), byte \(place)")
            } catch {
                errors += 1
            }
        }
        #expect(errors > 200)
    }

    @Test func everyLaterCallFailsToo() throws {
        var hasher = DiffIDHasher()
        #expect(throws: LayerError.unsupportedCompression("zstd")) { try hasher.update([0x28, 0xB5, 0x2F, 0xFD, 0]) }
        #expect(throws: LayerError.unsupportedCompression("zstd")) { try hasher.update([1]) }
        do throws(LayerError) {
            _ = try hasher.finish()
            Issue.record("no error")
        } catch {
            #expect(error == .unsupportedCompression("zstd"))
        }
        // A layer of nothing but the magic number.
        #expect(throws: LayerError.unsupportedCompression("zstd")) { try run([0x28, 0xB5, 0x2F, 0xFD], chunk: 1) }
    }

    @Test func limitsTheSize() throws {
        let zeros = [UInt8](repeating: 0, count: 1_000_000)
        let compressed = try gzip(zeros, level: 9)
        #expect(compressed.count < 2000)
        for bytes in [compressed, zeros] {
            #expect(throws: LayerError.tooLarge(limit: 999_999)) {
                try run(bytes, limits: .init(maximumUncompressedSize: 999_999))
            }
            #expect(try run(bytes, limits: .init(maximumUncompressedSize: 1_000_000)).uncompressedSize == 1_000_000)
        }
    }

    @Test func limitsTheRatio() throws {
        let compressed = try gzip([UInt8](repeating: 0, count: 1_000_000), level: 9)
        let strict = LayerLimits(maximumRatio: 100, ratioAllowance: 500_000)
        #expect { try run(compressed, limits: strict) } throws: { error in
            guard case .ratioTooHigh(100, let before, let after) = error as? LayerError else { return false }
            // Found soon after the allowance, not at the end.
            return after > 500_000 && after < 800_000 && before == compressed.count
        }
        #expect(throws: Never.self) { try run(compressed, limits: .init(maximumRatio: 1032, ratioAllowance: 0)) }
        #expect(throws: Never.self) { try run(compressed, limits: .init(maximumRatio: 1, ratioAllowance: 1_000_000)) }
        #expect(throws: LayerError.self) { try run(compressed, limits: .init(maximumRatio: 0, ratioAllowance: 0)) }
        // Many small members are no way around it.
        let members = try (0..<1000).flatMap { _ in try gzip([UInt8](repeating: 0, count: 30_000), level: 9) }
        #expect(throws: LayerError.self) { try run(members, chunk: 4096, limits: strict) }
    }

    /// A layer far larger than any buffer passes through in pieces.
    @Test func streamsLargeLayers() throws {
        let piece = try gzip([UInt8](repeating: 7, count: 1 << 20))
        var hasher = DiffIDHasher(limits: .init(maximumRatio: 2000))
        var expected = DigestHasher(.sha256)
        let plain = [UInt8](repeating: 7, count: 1 << 20)
        for _ in 0..<64 {
            try hasher.update(piece)
            expected.update(plain)
        }
        #expect(hasher.uncompressedSize == 64 << 20)
        #expect(hasher.compressedSize == Int64(piece.count * 64))
        let diffID = try hasher.finish().diffID
        let plainDigest = expected.finalize()
        #expect(diffID == plainDigest)
    }
}

@Suite struct LayerVerifierTests {
    static let content = Array("the layer".utf8)
    static let diffID = Digest.hash(of: content)

    private func descriptor(_ bytes: [UInt8], size: Int64? = nil, type: MediaType = .layerGzip) -> Descriptor {
        Descriptor(mediaType: type, digest: .hash(of: bytes), size: size ?? Int64(bytes.count))
    }

    private func verify(_ bytes: [UInt8], _ descriptor: Descriptor, diffID: Digest = diffID) throws(LayerError) -> Int64
    {
        var verifier = try LayerVerifier(descriptor: descriptor, diffID: diffID)
        for byte in bytes { try verifier.update([byte]) }
        return try verifier.finish()
    }

    @Test func acceptsLayers() throws {
        let compressed = try gzip(Self.content)
        #expect(try verify(compressed, descriptor(compressed)) == 9)
        #expect(try verify(Self.content, descriptor(Self.content, type: .layer)) == 9)
        // The bytes determine the compression, not the media type.
        #expect(try verify(Self.content, descriptor(Self.content, type: .dockerLayerGzip)) == 9)
        let wide = Digest.hash(.sha512, of: Self.content)
        #expect(try verify(compressed, descriptor(compressed), diffID: wide) == 9)
    }

    @Test func saysWhatWasExpectedAndGot() throws {
        let compressed = try gzip(Self.content)
        let good = descriptor(compressed)
        let other = Digest.hash(of: [])
        #expect(throws: LayerError.diffIDMismatch(expected: other, actual: Self.diffID, uncompressedSize: 9)) {
            try verify(compressed, good, diffID: other)
        }
        #expect(
            throws: LayerError.content(.tooLong(digest: good.digest, expectedSize: good.size, received: good.size + 1))
        ) {
            try verify(compressed + [0], good)
        }
        #expect(
            throws: LayerError.content(.tooShort(digest: good.digest, expectedSize: good.size, received: good.size - 1))
        ) { try verify(compressed.dropLast(), good) }
        // The same content compressed differently is not the layer that was asked for.
        let again = try gzip(Self.content, level: 0)
        #expect(
            throws: LayerError.content(
                .digestMismatch(expected: good.digest, actual: .hash(of: again), size: Int64(again.count)))
        ) { try verify(again, descriptor(compressed, size: Int64(again.count))) }
    }

    @Test func reportsZstd() throws {
        #expect(throws: LayerError.unsupportedCompression("zstd")) {
            try LayerVerifier(descriptor: descriptor(Self.content, type: .layerZstd), diffID: Self.diffID).finish()
        }
        let magic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x24, 0]
        #expect(throws: LayerError.unsupportedCompression("zstd")) { try verify(magic, descriptor(magic)) }
    }
}
