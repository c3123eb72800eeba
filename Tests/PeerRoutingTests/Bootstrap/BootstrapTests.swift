import NIOCore
import PeerTestKit
import Testing

@testable import PeerRouting

/// What the sources of first peers give, and what is made of it.
@Suite struct BootstrapTests {
    private let id = NodeIdentity().peerID

    @Test func listsOverHTTPAreRead() throws {
        func candidates(_ json: String) throws -> [BootstrapCandidate] {
            try BootstrapRecord.candidates(in: Array(json.utf8))
        }
        let address = try Multiaddr(parsing: "/ip4/10.0.0.1/tcp/5001")
        let plain = try Multiaddr(parsing: "/ip4/10.0.0.1")
        let full = #"[{"ID":"\#(id)","Addrs":["/ip4/10.0.0.1/tcp/5001"]}]"#
        #expect(try candidates(full) == [BootstrapCandidate(id: id, addresses: [address])])
        for noID in [#"[{"Addrs":["/ip4/10.0.0.1"]}]"#, #"[{"ID":"","Addrs":["/ip4/10.0.0.1"],"x":1}]"#] {
            #expect(try candidates(noID) == [BootstrapCandidate(id: nil, addresses: [plain])])
        }
        #expect(try candidates(#"[{"Addrs":["nonsense"]},{"ID":"\#(id)"}]"#) == [])
        let many = "[" + repeatElement(#"{"Addrs":["/ip4/10.0.0.1"]}"#, count: 9).joined(separator: ",") + "]"
        #expect(try candidates(many).count == 3)
        #expect(try candidates("[]") == [])
        for bad in ["", "{}", "null", #"[{"ID":7}]"#, #"[{"ID":"nobody","Addrs":["/ip4/10.0.0.1"]}]"#] {
            #expect(throws: BootstrapError.self, "\(bad)") { try candidates(bad) }
        }
        #expect(try candidates(String(decoding: BootstrapRecord.list(id, [address]), as: UTF8.self)).first?.id == id)
    }

    @Test func candidatesAreCompletedAndOurselvesLeftOut() throws {
        let own = try Multiaddr(parsing: "/ip4/10.0.0.9/tcp/5001")
        func completed(_ id: PeerID?, _ address: String) throws -> BootstrapCandidate? {
            BootstrapCandidate(id: id, addresses: [try Multiaddr(parsing: address)])
                .completed(port: 5001, own: self.id, ownAddresses: [own])
        }
        #expect(try completed(nil, "/ip4/10.0.0.1")?.addresses.map(\.description) == ["/ip4/10.0.0.1/tcp/5001"])
        #expect(try completed(nil, "/ip6/fd00::1/tcp/7")?.addresses.map(\.description) == ["/ip6/fd00::1/tcp/7"])
        #expect(try completed(id, "/ip4/10.0.0.1") == nil)
        #expect(try completed(nil, "/ip4/10.0.0.9") == nil)
        #expect(try completed(nil, "/ip4/10.0.0.9/tcp/5002") != nil)
    }

    @Test func roundsFollowOneAnotherMoreAndMoreSlowly() {
        var schedule = BootstrapSchedule(seed: 1)
        for expected in [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = schedule.roundEnded(.failed("x"), isOnline: false).nanoseconds / 1_000_000
            #expect((Int64(expected) * 8 / 10...Int64(expected) * 12 / 10).contains(wait), "\(expected)")
        }
        let online = schedule.roundEnded(.connected(3), isOnline: true)
        #expect((.minutes(27)...(.minutes(33))).contains(online))
        #expect(schedule.wentOffline() < .milliseconds(61))
        #expect((.minutes(27)...(.minutes(33))).contains(schedule.cameOnline()))
    }

    @Test func aClusterOfOneIsOnlyBelievedAfterAWhile() {
        var schedule = BootstrapSchedule(seed: 1)
        var believed: [Bool] = []
        let outcomes: [BootstrapSchedule.Outcome] = [
            .onlySelf, .onlySelf, .failed("x"), .onlySelf, .onlySelf, .onlySelf, .onlySelf, .failed("x"),
        ]
        for outcome in outcomes {
            _ = schedule.roundEnded(outcome, isOnline: false)
            believed.append(schedule.isAlone)
        }
        #expect(believed == [false, false, false, false, false, true, true, false])
    }

    @Test func dnsTakesTheLowestOfEachFamily() async throws {
        var source = DNSBootstrapSource(domain: "nodes")
        source.lookUp = { _, family in
            let texts =
                family == .v4 ? ["10.0.0.1", "10.0.0.2", "10.0.0.10", "10.0.1.1"] : ["fd00::1", "fd00::2"]
            return texts.compactMap { IPAddress($0) }
        }
        #expect(
            try await source.candidates().flatMap(\.addresses).map(\.description) == [
                "/ip4/10.0.0.1", "/ip4/10.0.0.2", "/ip4/10.0.0.10", "/ip6/fd00::1", "/ip6/fd00::2",
            ])
        #expect(try await source.candidates().allSatisfy { $0.id == nil })
        source.lookUp = { _, family in
            if family == .v6 { throw BootstrapError("no such family") }
            return [.loopbackV4]
        }
        #expect(try await source.candidates().count == 1)
        source.lookUp = { name, _ in throw BootstrapError("cannot resolve \(name)") }
        await #expect(throws: BootstrapError("cannot resolve nodes")) { try await source.candidates() }
    }

    @Test func theSystemsResolverIsAsked() async throws {
        let found = try await DNSBootstrapSource(domain: "localhost").candidates()
        #expect(found.flatMap(\.addresses).contains(try Multiaddr(parsing: "/ip4/127.0.0.1")))
        let error = await #expect(throws: BootstrapError.self) {
            try await DNSBootstrapSource(domain: "no..name").candidates()
        }
        #expect(error?.description.contains("no..name") == true)
    }

    @Test func staticPeersNeedAnID() throws {
        let address = try Multiaddr(parsing: "/ip4/10.0.0.1/tcp/5001")
        let error = #expect(throws: BootstrapError.self) { try StaticBootstrapSource([address]) }
        #expect(error?.description.contains("/ip4/10.0.0.1/tcp/5001") == true)
        let other = try Multiaddr(parsing: "/ip6/fd00::1/tcp/5001")
        let source = try StaticBootstrapSource([address.withPeerID(id), other.withPeerID(id)])
        #expect(source.peers == [BootstrapCandidate(id: id, addresses: [address, other])])
    }
}
