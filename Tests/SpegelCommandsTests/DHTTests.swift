import ArgumentParser
import MirrorServer
import PeerRouting
import Testing

@testable import SpegelCommands

@Suite struct DHTTests {
    private func parse(_ arguments: [String], environment: [String: String] = [:]) throws -> any ParsableCommand {
        let normalized = ArgumentNormalizer(catalogue: .spegel).normalize(arguments, environment: environment)
        return try SpegelCommand.parseAsRoot(normalized.arguments)
    }

    private let id = NodeIdentity().peerID

    @Test func optionsStandBeforeAndAfterTheQuestion() throws {
        for arguments in [
            ["dht", "find", "--dht-nodes", "10.0.0.1:5001", "[fd00::1]:7", "--format", "json", "--", "key"],
            [
                "dht", "--format=json", "--dht-nodes", "10.0.0.1:5001", "/ip6/fd00::1/tcp/7", "--dht-timeout", "10s",
                "find", "key",
            ],
        ] {
            let command = try #require(try parse(arguments) as? DHTCommand.FindCommand, "\(arguments)")
            #expect(command.key == "docker.io/library/key:latest")
            #expect(command.options.format == .json)
            #expect(command.options.dhtNodes.map(\.description) == ["/ip4/10.0.0.1/tcp/5001", "/ip6/fd00::1/tcp/7"])
        }
        let fromEnvironment = try #require(
            try parse(
                ["dht", "peers"],
                environment: ["BOOTSTRAP_KIND": "dns", "DNS_BOOTSTRAP_DOMAIN": "nodes", "ROUTER_ADDR": ":7"])
                as? DHTCommand.PeersCommand)
        #expect(fromEnvironment.options.bootstrap.dnsBootstrapDomain == "nodes")
        #expect(fromEnvironment.options.routerAddr.port == 7)
    }

    @Test func addressesOfNodes() throws {
        let readings = [
            ("10.0.0.1:5001", "/ip4/10.0.0.1/tcp/5001"),
            (":5001", "/ip4/127.0.0.1/tcp/5001"),
            ("0.0.0.0:5001", "/ip4/127.0.0.1/tcp/5001"),
            ("[::]:5001", "/ip6/::1/tcp/5001"),
            ("[fd00::7]:1", "/ip6/fd00::7/tcp/1"),
            ("node-1.example:5001", "/dns/node-1.example/tcp/5001"),
            ("/ip4/10.0.0.1/tcp/5001/p2p/\(id)", "/ip4/10.0.0.1/tcp/5001/p2p/\(id)"),
            ("/dns4/node/tcp/1", "/dns4/node/tcp/1"),
        ]
        for (text, address) in readings { #expect(try NodeAddress.parse(text).description == address) }
        for text in [
            "", "5001", "10.0.0.1", "10.0.0.1:0", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/1", "/nonsense", "a b:1",
        ] {
            #expect(throws: OptionError.self, "\(text)") { try NodeAddress.parse(text) }
        }
    }

    @Test(arguments: [
        ["dht", "find"], ["dht", "ping"], ["dht", "ping", "nowhere"], ["dht", "find", ""], ["dht", "peers", "surplus"],
        ["dht", "peers", "--dht-nodes", "10.0.0.1:1", "--bootstrap-kind", "http", "--http-bootstrap-url", "http://x"],
        ["dht", "peers", "--bootstrap-kind", "dns"], ["dht", "peers", "--dht-timeout", "0s"], ["dht", "nothing"],
        ["dht", "id", "--format", "xml"],
    ])
    func usageErrors(_ arguments: [String]) {
        #expect(throws: (any Error).self) { try parse(arguments) }
    }

    @Test func reports() throws {
        let peers = [
            WalkedPeer(id: id, addresses: [Multiaddr(.loopbackV4, tcpPort: 1)], hasAnswered: true, agentVersion: "a/1"),
            WalkedPeer(id: id, addresses: [], hasAnswered: false, agentVersion: nil),
        ]
        let lines = DHTReport.peers(peers).lines
        #expect(lines.count == 3)
        #expect(lines[1].hasPrefix("\(id)  a/1") && lines[1].hasSuffix("/ip4/127.0.0.1/tcp/1"))
        #expect(lines[2].hasSuffix("no answer"))
        #expect(
            DHTReport.peers(peers).json
                == #"{"peers":[{"addresses":["/ip4/127.0.0.1/tcp/1"],"answered":true,"id":"\#(id)","version":"a/1"},"#
                + #"{"addresses":[],"answered":false,"id":"\#(id)"}]}"#)
        let found = DHTReport.providers([Peer(id: id, addresses: [.loopbackV6])], of: "foobar")
        #expect(
            found.json
                == #"{"cid":"bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i","key":"foobar","#
                + #""providers":[{"addresses":["::1"],"id":"\#(id)"}]}"#)
        #expect(DHTReport.providers([], of: "x").lines == [])
        #expect(DHTReport.id(id).lines == ["\(id)"])
    }
}
