import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct PeerIDTests {
    @Test func vectors() throws {
        for vector in try Vectors.load().identities {
            let identity = try NodeIdentity(seed: hex(vector.seed))
            #expect(hexText(identity.publicKey.bytes) == vector.publicKey)
            #expect(hexText(identity.publicKey.encoded) == vector.publicKeyPB)
            #expect(try PublicKey(parsing: hex(vector.publicKeyPB)[...]) == identity.publicKey)
            #expect(hexText(identity.peerID.bytes) == vector.peerID)
            #expect(identity.peerID.description == vector.base58)
            #expect(identity.peerID.contentIdentifierText == vector.cidBase32)
            #expect(identity.peerID.base36Text == vector.cidBase36)
            for text in [vector.base58, vector.cidBase32, vector.cidBase36] {
                #expect(try PeerID(parsing: text) == identity.peerID)
            }
            #expect(try PeerID(bytes: hex(vector.peerID)) == identity.peerID)
        }
    }

    @Test func hashedIDsAreKept() throws {
        let text = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
        #expect(try PeerID(parsing: text).description == text)
        let key = try PublicKey(parsing: ([0x08, 0x00, 0x12, 0x80, 0x02] + [UInt8](repeating: 7, count: 256))[...])
        #expect(PeerID(publicKey: key).bytes.prefix(2) == [0x12, 0x20])
    }

    @Test(arguments: [
        "", "1", "Qm", "12D3KooW", "bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i", "hello",
        "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jx0", String(repeating: "1", count: 1000),
    ])
    func refusesText(_ text: String) {
        #expect(throws: WireFormatError.self) { try PeerID(parsing: text) }
    }

    @Test(arguments: ["", "00", "0000", "002408", "13200102", "1220aa", "00240801"])
    func refusesBytes(_ text: String) {
        #expect(throws: WireFormatError.self) { try PeerID(bytes: hex(text)) }
    }

    @Test(arguments: ["", "0801", "1220", "0804120101", "08011201ff", "ff"])
    func refusesKeys(_ text: String) {
        #expect(throws: WireFormatError.self) { try PublicKey(parsing: hex(text)[...]) }
    }

    @Test func signatures() throws {
        let identity = NodeIdentity()
        let signature = try identity.sign([1, 2, 3])
        #expect(identity.publicKey.verifies(signature: signature[...], of: [1, 2, 3]))
        #expect(!identity.publicKey.verifies(signature: signature[...], of: [1, 2, 4]))
        #expect(!identity.publicKey.verifies(signature: [], of: [1, 2, 3]))
        #expect(!NodeIdentity().publicKey.verifies(signature: signature[...], of: [1, 2, 3]))
    }

    @Test func mutatedIDsNeverCrash() throws {
        var random = SplitMix64(seed: 8)
        let ids = try Vectors.load().identities
        for round in 0..<10_000 {
            let vector = ids[round % ids.count]
            if let peer = try? PeerID(bytes: random.mutate(hex(vector.peerID))) {
                #expect(try PeerID(parsing: peer.contentIdentifierText) == peer)
            }
            let text = String(decoding: random.mutate(Array(vector.base58.utf8)), as: UTF8.self)
            if let peer = try? PeerID(parsing: text) { #expect(try PeerID(bytes: peer.bytes) == peer) }
            _ = try? PublicKey(parsing: random.mutate(hex(vector.publicKeyPB))[...])
        }
    }
}
