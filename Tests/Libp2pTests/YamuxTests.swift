import NIOCore
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct YamuxTests {
    private func session(client: Bool = false, inbound: Int = 256, outbound: Int = 256) -> YamuxSession {
        YamuxSession(isClient: client, maximumInboundStreams: inbound, maximumOutboundStreams: outbound)
    }

    private func frame(
        _ type: YamuxHeader.FrameType, _ flags: YamuxHeader.Flags, _ id: UInt32, _ value: UInt32
    ) -> [UInt8] {
        var buffer = ByteBuffer()
        YamuxHeader(type, flags, streamID: id, value: value).write(to: &buffer)
        return Array(buffer.readableBytesView)
    }

    private func data(_ id: UInt32, _ bytes: [UInt8], _ flags: YamuxHeader.Flags = []) -> [UInt8] {
        frame(.data, flags, id, UInt32(bytes.count)) + bytes
    }

    private func events(_ session: inout YamuxSession, _ bytes: [UInt8], fragment: Int = .max) throws
        -> [YamuxSession.Event]
    {
        var events: [YamuxSession.Event] = []
        var input = ByteBuffer()
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = rest.prefix(fragment)
            rest = rest.dropFirst(part.count)
            input.writeBytes(part)
            while let event = try session.nextEvent(from: &input) { events.append(event) }
        }
        return events
    }

    private func output(_ session: inout YamuxSession) -> String {
        hexText(session.takeOutput().readableBytesView)
    }

    @Test func framesAsInTheSpecification() throws {
        #expect(hexText(frame(.windowUpdate, .syn, 1, 0)) == "000100010000000100000000")
        #expect(hexText(frame(.windowUpdate, .ack, 1, 0)) == "000100020000000100000000")
        #expect(hexText(frame(.data, [], 1, 5)) == "000000000000000100000005")
        #expect(hexText(frame(.windowUpdate, .fin, 1, 0)) == "000100040000000100000000")
        #expect(hexText(frame(.windowUpdate, .rst, 1, 0x1001)) == "000100080000000100001001")
        #expect(hexText(frame(.windowUpdate, [], 1, 0x20000)) == "000100000000000100020000")
        #expect(hexText(frame(.ping, .syn, 0, 7)) == "000200010000000000000007")
        #expect(hexText(frame(.ping, .ack, 0, 7)) == "000200020000000000000007")
        #expect(hexText(frame(.goAway, [], 0, 0)) == "000300000000000000000000")
    }

    @Test func openWriteFinish() throws {
        var client = session(client: true)
        let id = try #require(value { client.open() })
        var payload = ByteBuffer(string: "hello")
        #expect(value { client.write(&payload, on: id) } == 5)
        client.finish(id)
        #expect(
            output(&client) == "000100010000000100000000" + "000000000000000100000005" + hexText("hello".utf8)
                + "000100040000000100000000")
        #expect(value { client.open() } == 3)
        var server = session()
        #expect(value { server.open() } == 2)
    }

    /// As Go opens a stream: SYN on an empty window update, data, FIN on an empty window update; and other legal forms.
    @Test(arguments: [1, 5, 13, .max]) func acceptsWithOneAcknowledgement(_ fragment: Int) throws {
        for bytes in [
            frame(.windowUpdate, .syn, 1, 0) + data(1, [7, 8]) + frame(.windowUpdate, .fin, 1, 0),
            data(1, [7, 8], .syn) + frame(.data, .fin, 1, 0),
            data(1, [7, 8], [.syn, .fin]),
        ] {
            var server = session()
            let got = try events(&server, bytes, fragment: fragment)
            #expect(got.first == .opened(1))
            #expect(got.last == .finished(1))
            let payload = got.reduce(into: [UInt8]()) { all, event in
                if case .data(1, let chunk) = event { all.append(contentsOf: chunk.readableBytesView) }
            }
            #expect(payload == [7, 8])
            #expect(output(&server) == hexText(frame(.windowUpdate, .ack, 1, 0)))
            server.finish(1)
            #expect(server.streamCount == 0)
        }
    }

    @Test func refusesStreamsBeyondTheLimitAndForgetsTheirData() throws {
        var server = session(inbound: 2)
        let open = [1, 3, 5].flatMap { frame(.windowUpdate, .syn, $0, 0) }
        #expect(try events(&server, open) == [.opened(1), .opened(3)])
        #expect(output(&server).hasSuffix(hexText(frame(.windowUpdate, .rst, 5, 0))))
        #expect(try events(&server, data(5, [1, 2, 3]) + frame(.windowUpdate, .fin, 5, 0)) == [])
        #expect(try events(&server, frame(.windowUpdate, .rst, 3, 0x1002)) == [.reset(3, code: 0x1002)])
        #expect(try events(&server, frame(.windowUpdate, .syn, 7, 0)) == [.opened(7)])
    }

    @Test func violationsEndTheSession() throws {
        let violations: [[UInt8]] = [
            frame(.windowUpdate, .syn, 2, 0),  // wrong parity
            frame(.windowUpdate, .syn, 0, 0),
            frame(.windowUpdate, .syn, 1, 0) + frame(.windowUpdate, .syn, 1, 0),  // opened twice
            frame(.windowUpdate, .syn, 1, 0) + frame(.data, [], 1, 262_145),  // over the window
            frame(.windowUpdate, .syn, 1, 0) + frame(.windowUpdate, [], 1, .max),  // window overflow
            [1] + frame(.ping, .syn, 0, 0).dropFirst(),  // version
            [0, 9] + frame(.ping, .syn, 0, 0).dropFirst(2),  // type
        ]
        for bytes in violations {
            var server = session()
            #expect(throws: YamuxError.self) { try events(&server, bytes) }
            #expect(output(&server).hasSuffix(hexText(frame(.goAway, [], 0, 1))))
        }
    }

    @Test func sendingStopsAtTheWindow() throws {
        var client = session(client: true)
        let id = try #require(value { client.open() })
        var payload = ByteBuffer(repeating: 1, count: 300_000)
        var sent = 0
        while case let count = client.write(&payload, on: id), count > 0 {
            #expect(count <= YamuxSession.maximumPayload)
            sent += count
        }
        #expect(sent == 262_144)
        #expect(try events(&client, frame(.windowUpdate, .ack, id, 0)) == [])
        #expect(try events(&client, frame(.windowUpdate, [], id, 1000)) == [.windowGrew(id)])
        #expect(value { client.write(&payload, on: id) } == 1000)
        // Go's window may grow to 16 MiB and the peer may say anything up to 32 bits.
        #expect(try events(&client, frame(.windowUpdate, [], id, .max)) == [.windowGrew(id)])
    }

    @Test func windowIsGrantedWhenHalfIsConsumed() throws {
        var server = session()
        _ = try events(&server, frame(.windowUpdate, .syn, 1, 0) + data(1, [UInt8](repeating: 0, count: 200_000)))
        _ = server.takeOutput()
        server.consumed(100_000, on: 1)
        #expect(output(&server) == "")
        server.consumed(50_000, on: 1)
        #expect(output(&server) == hexText(frame(.windowUpdate, [], 1, 150_000)))
        #expect(throws: YamuxError.self) { try events(&server, frame(.data, [], 1, 212_145)) }
        var other = session()
        _ = try events(&other, frame(.windowUpdate, .syn, 1, 0) + data(1, [UInt8](repeating: 0, count: 200_000)))
        other.consumed(150_000, on: 1)
        _ = try events(&other, frame(.data, [], 1, 212_144))
    }

    @Test func pings() throws {
        var server = session()
        #expect(try events(&server, frame(.ping, .syn, 0, 7)) == [])
        #expect(output(&server) == "000200020000000000000007")
        _ = try events(&server, (0..<100).flatMap { frame(.ping, .syn, 0, $0) })
        #expect(value { server.takeOutput().readableBytes } == 32 * 12)
        _ = try events(&server, frame(.ping, .syn, 0, 1))
        #expect(value { server.takeOutput().readableBytes } == 12)
        server.ping(9)
        #expect(output(&server) == "000200010000000000000009")
        #expect(try events(&server, frame(.ping, .ack, 0, 9)) == [.pong(9)])
    }

    @Test func resetAndGoAway() throws {
        var client = session(client: true)
        let id = try #require(value { client.open() })
        client.reset(id)
        #expect(output(&client).hasSuffix("000100080000000100000000"))
        var payload = ByteBuffer(string: "x")
        #expect(value { client.write(&payload, on: id) } == 0)
        // What was under way when we reset: no error, no event.
        #expect(try events(&client, data(id, [1, 2]) + frame(.windowUpdate, [], id, 5)) == [])
        #expect(try events(&client, frame(.goAway, [], 0, 0x1005)) == [.goAway(0x1005)])
        #expect(try events(&client, frame(.windowUpdate, .rst, id, 0)) == [])
    }

    @Test func outboundStreamsAreLimited() throws {
        var client = session(client: true, outbound: 2)
        #expect(value { client.open() } == 1)
        #expect(value { client.open() } == 3)
        #expect(value { client.open() } == nil)
        client.reset(1)
        #expect(value { client.open() } == 5)
    }

    @Test func dataAfterTheEndIsIgnored() throws {
        var server = session()
        let got = try events(&server, data(1, [1], [.syn, .fin]) + data(1, [2]) + frame(.windowUpdate, .fin, 1, 0))
        #expect(got == [.opened(1), .data(1, ByteBuffer(bytes: [1])), .finished(1)])
    }

    /// The same bytes give the same events and answers however they are cut.
    @Test func fragmentationChangesNothing() throws {
        var random = SplitMix64(seed: 12)
        for _ in 0..<100 {
            var bytes: [UInt8] = []
            for _ in 0..<40 {
                let id = UInt32.random(in: 0...4, using: &random) * 2 + 1
                switch Int.random(in: 0..<6, using: &random) {
                case 0: bytes += frame(.windowUpdate, .syn, id, 0)
                case 1: bytes += frame(.windowUpdate, .rst, id, 3)
                case 2: bytes += frame(.windowUpdate, .fin, id, 0)
                case 3: bytes += frame(.ping, .syn, 0, id)
                default: bytes += data(id, [UInt8](repeating: UInt8(id), count: Int(id) * 3))
                }
            }
            func run(_ fragment: Int) -> (events: [String], output: String) {
                var server = session()
                var log: [String] = []
                var input = ByteBuffer()
                var rest = bytes[...]
                var failed = false
                while !rest.isEmpty, !failed {
                    let part = rest.prefix(fragment)
                    rest = rest.dropFirst(part.count)
                    input.writeBytes(part)
                    do {
                        while let event = try server.nextEvent(from: &input) {
                            if case .data(let id, let chunk) = event {
                                log += chunk.readableBytesView.map { "\(id):\($0)" }
                            } else {
                                log.append("\(event)")
                            }
                        }
                    } catch {
                        log.append("\(error)")
                        failed = true
                    }
                }
                return (log, output(&server))
            }
            let whole = run(.max)
            for fragment in [1, 7, 100] {
                let part = run(fragment)
                #expect(part.events == whole.events)
                #expect(part.output == whole.output)
            }
        }
    }

    @Test func mutatedFramesNeverCrash() throws {
        var random = SplitMix64(seed: 13)
        let sample =
            frame(.windowUpdate, .syn, 1, 0) + data(1, [1, 2, 3]) + frame(.ping, .syn, 0, 1)
            + frame(.windowUpdate, .fin, 1, 0) + frame(.windowUpdate, .syn, 3, 0) + frame(.windowUpdate, .rst, 3, 1)
        for _ in 0..<10_000 {
            var server = session()
            _ = try? events(&server, random.mutate(sample), fragment: 9)
            #expect(server.streamCount <= 256)
        }
    }
}
