import NIOCore
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct MultistreamTests {
    private func token(_ text: String) -> [UInt8] {
        var buffer = ByteBuffer()
        MultistreamToken.append(text, to: &buffer)
        return Array(buffer.readableBytesView)
    }

    private func tokens(_ texts: [String]) -> [UInt8] { texts.flatMap { token($0) } }

    private let header = MultistreamToken.header

    @Test func vectors() throws {
        for (text, encoded) in try Vectors.load().multistream {
            #expect(hexText(token(text)) == encoded)
            var buffer = ByteBuffer(bytes: hex(encoded))
            #expect(try MultistreamToken.read(from: &buffer) == text)
            #expect(buffer.readableBytes == 0)
        }
    }

    @Test func tokenBounds() throws {
        var longest = ByteBuffer(bytes: token(String(repeating: "x", count: 1023)))
        #expect(try MultistreamToken.read(from: &longest)?.utf8.count == 1023)
        for bad: [UInt8] in [
            token(String(repeating: "x", count: 1024)), [0], [3, 0x6e, 0x61, 0x20], [0x83, 0x00, 0x6e, 0x61, 0x0a],
            [3, 0xff, 0xfe, 0x0a], [UInt8](repeating: 0xff, count: 9),
        ] {
            #expect(throws: WireFormatError.self) {
                var buffer = ByteBuffer(bytes: bad)
                _ = try MultistreamToken.read(from: &buffer)
            }
        }
    }

    /// Runs an initiator over the answers, cut into fragments; what it said, how it ended and what it left.
    private func initiate(
        _ proposals: [String], answers: [UInt8], fragment: Int
    ) throws -> (said: [UInt8], outcome: MultistreamInitiator.Outcome, rest: [UInt8]) {
        var initiator = MultistreamInitiator(proposals)
        var output = ByteBuffer()
        initiator.start(into: &output)
        var input = ByteBuffer()
        var outcome = MultistreamInitiator.Outcome.needsMore
        for start in stride(from: 0, to: answers.count, by: fragment) {
            input.writeBytes(answers[start..<min(start + fragment, answers.count)])
            if outcome == .needsMore { outcome = try initiator.receive(&input, output: &output) }
        }
        return (Array(output.readableBytesView), outcome, Array(input.readableBytesView))
    }

    private func respond(
        to bytes: [UInt8], speaking supported: Set<String>, fragment: Int
    ) throws -> (said: [UInt8], agreed: String?, rest: [UInt8]) {
        var responder = MultistreamResponder()
        var output = ByteBuffer()
        responder.start(into: &output)
        var input = ByteBuffer()
        var agreed: String?
        for start in stride(from: 0, to: bytes.count, by: fragment) {
            input.writeBytes(bytes[start..<min(start + fragment, bytes.count)])
            if agreed == nil { agreed = try responder.receive(&input, output: &output) { supported.contains($0) } }
        }
        return (Array(output.readableBytesView), agreed, Array(input.readableBytesView))
    }

    @Test(arguments: [1, 2, 5, 1000]) func initiatorProposesOneAfterTheOther(_ fragment: Int) throws {
        let answers = tokens([header, "na", "na", "/c"]) + [1, 2, 3]
        let result = try initiate(["/a", "/b", "/c", "/d"], answers: answers, fragment: fragment)
        #expect(result.outcome == .agreed("/c"))
        #expect(result.rest == [1, 2, 3])
        #expect(result.said == tokens([header, "/a", "/b", "/c"]))
    }

    @Test func initiatorIsRefused() throws {
        let result = try initiate(["/a", "/b"], answers: tokens([header, "na", "na"]), fragment: 1)
        #expect(result.outcome == .refused)
    }

    @Test func initiatorRefusesInvalidAnswers() {
        for answers in [["/multistream/2.0.0"], [header, "/other"], [header, header], ["na"]] {
            #expect(throws: WireFormatError.self) { try initiate(["/a"], answers: tokens(answers), fragment: 1000) }
        }
    }

    /// As Go dials: TLS first, and later a stream whose first request comes with the negotiation.
    @Test(arguments: [1, 2, 5, 1000]) func responderRefusesAndKeepsPipelinedBytes(_ fragment: Int) throws {
        let bytes = tokens([header, "/tls/1.0.0", "ls", "/noise"]) + [9, 8, 7]
        let result = try respond(to: bytes, speaking: ["/noise"], fragment: fragment)
        #expect(result.agreed == "/noise")
        #expect(result.rest == [9, 8, 7])
        #expect(result.said == tokens([header, "na", "na", "/noise"]))
    }

    @Test func responderLimitsProposals() throws {
        let fifteen = [header] + (0..<15).map { "/p\($0)" }
        #expect(try respond(to: tokens(fifteen), speaking: [], fragment: 1000).agreed == nil)
        #expect(throws: WireFormatError.self) {
            try respond(to: tokens(fifteen + ["/p15"]), speaking: [], fragment: 1000)
        }
        #expect(throws: WireFormatError.self) { try respond(to: tokens(["/noise"]), speaking: ["/noise"], fragment: 9) }
    }

    @Test func bothSidesAgreeByteByByte() throws {
        var initiator = MultistreamInitiator(["/x", "/y"])
        var responder = MultistreamResponder()
        var toResponder = ByteBuffer()
        var toInitiator = ByteBuffer()
        initiator.start(into: &toResponder)
        responder.start(into: &toInitiator)
        var inputOfResponder = ByteBuffer()
        var inputOfInitiator = ByteBuffer()
        var agreed: String?
        var outcome = MultistreamInitiator.Outcome.needsMore
        while agreed == nil || outcome == .needsMore {
            let byte = toResponder.readSlice(length: 1)
            let answer = toInitiator.readSlice(length: 1)
            try #require(byte != nil || answer != nil)
            if var byte { inputOfResponder.writeBuffer(&byte) }
            if var answer { inputOfInitiator.writeBuffer(&answer) }
            if agreed == nil {
                agreed = try responder.receive(&inputOfResponder, output: &toInitiator) { $0 == "/y" }
            }
            if outcome == .needsMore {
                outcome = try initiator.receive(&inputOfInitiator, output: &toResponder)
            }
        }
        #expect(agreed == "/y")
        #expect(outcome == .agreed("/y"))
    }

    @Test func mutatedNegotiationsNeverCrash() {
        var random = SplitMix64(seed: 10)
        let asked = tokens([header, "/tls/1.0.0", "/noise"])
        let answered = tokens([header, "na", "/noise"])
        for _ in 0..<5000 {
            _ = try? respond(to: random.mutate(asked), speaking: ["/noise"], fragment: 7)
            _ = try? initiate(["/tls/1.0.0", "/noise"], answers: random.mutate(answered), fragment: 7)
        }
    }
}
