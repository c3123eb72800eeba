import Crypto
import PeerTestKit
import Testing

@testable import PeerRoutingCore

@Suite struct BaseTests {
    @Test func roundTrips() throws {
        var random = SplitMix64(seed: 4)
        for count in 0..<60 {
            for zeros in [0, 1, min(count, 3)] where zeros <= count {
                let bytes =
                    [UInt8](repeating: 0, count: zeros)
                    + (zeros..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
                #expect(try Base58.decode(Base58.encode(bytes)) == bytes)
                #expect(try Base36.decode(Base36.encode(bytes)) == bytes)
                #expect(try Base32.decode(Base32.encode(bytes)) == bytes)
                #expect(try Base64.decode(Base64.encode(bytes, .standard), .standard) == bytes)
                #expect(try Base64.decode(Base64.encode(bytes, .urlUnpadded), .urlUnpadded) == bytes)
            }
        }
    }

    @Test func knownTexts() throws {
        #expect(Base58.encode(Array("Hello World!".utf8)) == "2NEpo7TZRRrLZSi2U")
        #expect(Base58.encode([0, 0, 0x28, 0x7f, 0xb4, 0xcd]) == "11233QC4")
        #expect(Base32.encode(Array("foobar".utf8)) == "mzxw6ytboi")
        #expect(Base64.encode(Array("foob".utf8), .standard) == "Zm9vYg==")
        #expect(try Multibase.decode("f48656c6c6f") == Array("Hello".utf8))
        #expect(try Multibase.decode("z2NEpo7TZRRrLZSi2U") == Array("Hello World!".utf8))
    }

    @Test(arguments: ["0", "O", "I", "l", "+", "ä", String(repeating: "z", count: 129)])
    func base58Refuses(_ text: String) {
        #expect(throws: WireFormatError.self) { try Base58.decode(text) }
    }

    @Test(arguments: ["b1", "ba", "baa=", "bab", "f4", "fxx", "xabc", "", "k_", "u+", "uAB"])
    func multibaseRefuses(_ text: String) {
        #expect(throws: WireFormatError.self) { try Multibase.decode(text) }
    }

    @Test func contentIdentifiers() throws {
        for key in try Vectors.load().keys {
            let multihash = Multihash.sha256(of: key.key.utf8)
            #expect(hexText(multihash.bytes) == key.multihash)
            #expect(multihash.contentIdentifierText == key.cid)
            #expect(hexText(SHA256.hash(data: multihash.bytes)) == key.kadKey)
        }
    }

    @Test(arguments: ["", "12", "1220", "122000", "1200", "000301", "00020102 03", "928080"])
    func multihashRefuses(_ text: String) {
        #expect(throws: WireFormatError.self) { try Multihash(parsing: hex(text)[...]) }
    }
}
