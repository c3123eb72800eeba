import PeerTestKit
import Testing

@testable import Libp2p
@testable import PeerRouting

@Suite struct ClaimMessageTests {
    private static let digest = "sha256:" + String(repeating: "ab", count: 32)

    private static var requests: [ClaimRequest] {
        [
            ClaimRequest(key: digest, content: .claim(.init())),
            claim(offset: 1 << 40, rate: 90 << 20) { $0.failedParent = syntheticPeer(7) },
            claim(offset: 1, rate: 0) { ($0.current, $0.isFinal) = (.leading, true) },
            claim(offset: 1, rate: 0) { $0.current = .following(syntheticPeer(8)) },
            ClaimRequest(key: digest, content: .report(.arriving(bytes: 1 << 20))),
            ClaimRequest(key: digest, content: .report(.complete)),
            ClaimRequest(key: "x", content: .report(.failed)),
        ]
    }

    private static func claim(
        offset: UInt64, rate: UInt64, _ change: (inout ClaimRequest.Claim) -> Void = { _ in }
    ) -> ClaimRequest {
        var claim = ClaimRequest.Claim()
        (claim.offset, claim.upstreamRate) = (offset, rate)
        change(&claim)
        return ClaimRequest(key: digest, content: .claim(claim))
    }

    private static var responses: [ClaimResponse] {
        [
            ClaimResponse(.unknown), ClaimResponse(.lead), ClaimResponse(.wait),
            ClaimResponse(.follow(syntheticPeer(3), addresses: [])),
            ClaimResponse(.ask(syntheticPeer(4), addresses: [Multiaddr(.v4(0x0a00_0002), tcpPort: 5001)])),
            ClaimResponse(
                .follow(
                    syntheticPeer(3),
                    addresses: [
                        Multiaddr(.v4(0x0a00_0001), tcpPort: 5001), Multiaddr(.v6(high: 1, low: 2), tcpPort: 9),
                    ])),
        ]
    }

    @Test func whatIsSaidIsUnderstood() throws {
        for request in Self.requests { #expect(try ClaimRequest(decoding: request.encoded()) == request) }
        for response in Self.responses { #expect(try ClaimResponse(decoding: response.encoded()) == response) }
    }

    /// The bytes of docs/claim-protocol.md, so that the protocol does not change by accident.
    @Test func theBytesAreThoseOfTheDocument() throws {
        var claim = Self.claim(offset: 300, rate: 5)
        claim.key = "sha256:00"
        #expect(claim.encoded() == [0x12, 9] + Array("sha256:00".utf8) + [0x18, 0xac, 0x02, 0x28, 0x05])
        let report = ClaimRequest(key: "sha256:00", content: .report(.complete))
        #expect(report.encoded() == [0x08, 0x02, 0x12, 9] + Array("sha256:00".utf8))
        #expect(ClaimResponse(.unknown).encoded().isEmpty)
        #expect(ClaimResponse(.lead).encoded() == [0x08, 0x01])
        let follow = ClaimResponse(
            .follow(syntheticPeer(1), addresses: [Multiaddr(.v4(0x0a00_0001), tcpPort: 5001)]))
        let id = syntheticPeer(1).bytes
        #expect(
            follow.encoded()
                == [0x08, 0x02, 0x12, UInt8(id.count)] + id + [0x1a, 8, 0x04, 10, 0, 0, 1, 0x06, 0x13, 0x89])
    }

    @Test func damagedMessagesNeverTrapAndStayWithinLimits() throws {
        var random = SplitMix64(seed: 15)
        let requests = Self.requests.map { $0.encoded() }
        let responses = Self.responses.map { $0.encoded() }
        for _ in 0..<20_000 {
            if let request = try? ClaimRequest(decoding: random.mutate(requests.randomElement(using: &random) ?? [])) {
                #expect((1...ClaimRequest.keyLength).contains(request.key.utf8.count))
                #expect(try ClaimRequest(decoding: request.encoded()) == request)
            }
            if let response = try? ClaimResponse(decoding: random.mutate(responses.randomElement(using: &random) ?? []))
            {
                if case .follow(_, let addresses) = response.content {
                    #expect(addresses.count <= ClaimResponse.addressLimit)
                }
                #expect(try ClaimResponse(decoding: response.encoded()) == response)
            }
        }
    }

    @Test func unusableMessagesAreErrors() {
        let key = String(repeating: "k", count: ClaimRequest.keyLength + 1)
        #expect(throws: WireFormatError.self) {
            try ClaimRequest(decoding: ClaimRequest(key: key, content: .report(.failed)).encoded())
        }
        #expect(throws: WireFormatError.self) { try ClaimRequest(decoding: []) }
        #expect(throws: WireFormatError.self) { try ClaimRequest(decoding: [0x08, 0x09, 0x12, 1, 0x61]) }
        #expect(throws: WireFormatError.self) { try ClaimResponse(decoding: [0x08, 0x02]) }
        // What a later version may answer.
        #expect((try? ClaimResponse(decoding: [0x08, 0x09]))?.content == .unknown)
    }
}
