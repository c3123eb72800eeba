import PeerTestKit
import Testing

@testable import PeerRouting

@Suite struct KadVectorTests {
    static let positions: [(UInt8, String)] = [
        (0x11, "dceb274db47132f158e9647d67e6ac55ba9dfe9110fa3fd352cbd71a9205a0ee"),
        (0x22, "36fbff76b3050449298ac7193601d5a72bc590912b2fd576601d865b78920c60"),
        (0x33, "2a52a4395036983b7ee2ccf8c09cba803c17cea367ec8d065581331b26096aeb"),
    ]

    @Test(arguments: positions) func positionOfPeer(_ seed: UInt8, _ expected: String) throws {
        #expect(KadKey(hashing: try vectorPeer(seed).bytes).bytes == hex(expected))
    }

    @Test func positionOfCountingSeed() throws {
        let peer = try NodeIdentity(seed: (0..<32).map { UInt8($0) }).peerID
        #expect(
            KadKey(hashing: peer.bytes).bytes == hex("384150e323eab36b9cda6c59f5f5abe3e9d9f906989c7e35d1bd50895166c8c3")
        )
    }

    @Test func commonPrefixLengths() throws {
        let s0 = KadKey(hashing: try NodeIdentity(seed: (0..<32).map { UInt8($0) }).peerID.bytes)
        let key11 = KadKey(hashing: try vectorPeer(0x11).bytes)
        let key22 = KadKey(hashing: try vectorPeer(0x22).bytes)
        let key33 = KadKey(hashing: try vectorPeer(0x33).bytes)
        #expect(key11.commonPrefixLength(with: key22) == 0)
        #expect(key11.commonPrefixLength(with: key33) == 0)
        #expect(key11.commonPrefixLength(with: s0) == 0)
        #expect(key22.commonPrefixLength(with: key33) == 3)
        #expect(key22.commonPrefixLength(with: s0) == 4)
        #expect(key33.commonPrefixLength(with: s0) == 3)
        #expect(key33.commonPrefixLength(with: key33) == 256)
    }

    struct KeyVector: Sendable {
        let key: String
        let multihash: String
        let position: String
        let cid: String
        /// The seeds of the peers, nearest first; 0 stands for the counting seed.
        let order: [UInt8]
    }

    static let keys = [
        KeyVector(
            key: "foobar", multihash: "1220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2",
            position: "bd8506b070010a16a922a8f14536e7390f5f265c7515c00783bb98b58c2e444f",
            cid: "bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i", order: [0x11, 0, 0x22, 0x33]),
        KeyVector(
            key: "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
            multihash: "122021c196d7798d79d59dd43da3e00a6f2f5fee1ff0c80b31c493a345b35a7a1bf6",
            position: "acbbce56ad572a335476580d7c48c64166dcd9a18956cd56c331bf953354f15f",
            cid: "bafkreibbyglno6mnphkz3vb5upqau3zpl7xb74gibmy4je5diwzvu6q36y", order: [0x11, 0x33, 0, 0x22]),
        KeyVector(
            key: "docker.io/library/nginx:latest",
            multihash: "122086cee2c10898a48ff47a0626f8202a2408b5893aff5df58ae10d83166e6d7b0e",
            position: "03412b40b8527698361f6d61ebbeb7b3b6df55f62ba23162644a0eff1b54b0d3",
            cid: "bafkreiegz3rmcceyush7i6qge34cakrebc2ysox7lx2yvyinqmlg43l3by", order: [0x33, 0x22, 0, 0x11]),
    ]

    @Test(arguments: keys) func contentKeys(_ vector: KeyVector) throws {
        let key = ContentKey(vector.key)
        #expect(key.multihash == hex(vector.multihash))
        #expect(key.position.bytes == hex(vector.position))
        #expect(key.cid == vector.cid)
        let peers = try [UInt8(0x11), 0x22, 0x33, 0].map { seed in
            let bytes = seed == 0 ? (0..<32).map { UInt8($0) } : [UInt8](repeating: seed, count: 32)
            return (seed, KadKey(hashing: try NodeIdentity(seed: bytes).peerID.bytes))
        }
        let sorted = peers.sorted { $0.1.distance(to: key.position) < $1.1.distance(to: key.position) }
        #expect(sorted.map(\.0) == vector.order)
    }

    @Test func distances() throws {
        let foobar = ContentKey("foobar").position
        let distance = KadKey(hashing: try vectorPeer(0x11).bytes).distance(to: foobar)
        #expect(distance.words.0 == 0x616e_21fd_c470_38e7)
        #expect(distance.leadingZeroBits == 1)
        let s0 = KadKey(hashing: try NodeIdentity(seed: (0..<32).map { UInt8($0) }).peerID.bytes)
        #expect(s0.distance(to: foobar).words.0 == 0x85c4_5653_53eb_b97d)
    }

    static func messages() throws -> [(KadMessage, String)] {
        let foobar = ContentKey("foobar").multihash
        let peer11 = try vectorPeer(0x11)
        let peer22 = try vectorPeer(0x22)
        let at1 = try Multiaddr(parsing: "/ip4/10.99.0.1/tcp/5001")
        let at2 = try Multiaddr(parsing: "/ip4/10.99.0.2/tcp/5001")
        return [
            (
                .findNode(peer11.bytes),
                "2c08041226002408011220d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c97787375001"
            ),
            (
                KadMessage(
                    kind: .findNode, closerPeers: [KadContact(id: peer11, addresses: [at1], isConnected: true)]),
                """
                3a080442340a26002408011220d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c97787371208
                040a63000106138918015001
                """
            ),
            (
                KadMessage(
                    kind: .addProvider, key: foobar, providerPeers: [KadContact(id: peer11, addresses: [at1])]),
                """
                5c080212221220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f24a320a26002408
                011220d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c97787371208040a6300010613895001
                """
            ),
            (
                .getProviders(foobar),
                "28080312221220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f25001"
            ),
            (
                KadMessage(
                    kind: .getProviders, key: foobar, closerPeers: [KadContact(id: peer22, addresses: [at2])],
                    providerPeers: [KadContact(id: peer11, addresses: [at1], isConnected: true)]),
                """
                9201080312221220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f242320a260024
                08011220a09aa5f47a6759802ff955f8dc2d2a14a5c99d23be97f864127ff9383455a4f01208040a630002061389
                4a340a26002408011220d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c977873712
                08040a63000106138918015001
                """
            ),
            (KadMessage(kind: .ping), "0408055001"),
        ]
    }

    @Test func messagesBothWays() throws {
        for (message, text) in try Self.messages() {
            let framed = hex(text)
            #expect(DelimitedMessage.encode(message.encoded()) == framed)
            let prefix = framed.count > 128 ? 2 : 1
            #expect(try KadMessage(decoding: Array(framed.dropFirst(prefix))) == message)
        }
    }
}
