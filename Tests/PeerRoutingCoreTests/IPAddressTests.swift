import Foundation
import NIOCore
import PeerTestKit
import Testing

@testable import PeerRoutingCore

@Suite struct IPAddressTests {
    /// What the system's own conversion says about a text.
    private func system(_ text: String) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 16)
        if inet_pton(AF_INET, text, &bytes) == 1 { return Array(bytes.prefix(4)) }
        return inet_pton(AF_INET6, text, &bytes) == 1 ? bytes : nil
    }

    @Test func agreesWithTheSystemOnRandomAddresses() throws {
        var random = SplitMix64(seed: 5)
        for round in 0..<4000 {
            var bytes = (0..<(round % 2 == 0 ? 4 : 16)).map { _ in UInt8.random(in: 0...255, using: &random) }
            // Zero groups make the abbreviation interesting.
            if bytes.count == 16 {
                for group in 0..<8 where Bool.random(using: &random) {
                    bytes[2 * group] = 0
                    bytes[2 * group + 1] = Bool.random(using: &random) ? 0 : bytes[2 * group + 1]
                }
            }
            let address = try #require(IPAddress(bytes: bytes))
            #expect(address.bytes == bytes)
            #expect(system(address.description) == bytes)
            #expect(IPAddress(address.description) == address)
        }
    }

    @Test(arguments: [
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("2001:0db8::0001", "2001:db8::1"), ("::", "::"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("1:0:0:0:0:0:0:0", "1::"), ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8::A", "2001:db8::a"), ("::ffff:10.1.2.3", "::ffff:10.1.2.3"),
        ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
        ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"),
    ])
    func canonicalText(_ text: String, _ canonical: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == canonical)
        #expect(IPAddress(address.description) == address)
    }

    @Test(arguments: [
        "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1..2.3", "a.b.c.d", "+1.2.3.4", ":", ":::",
        "1::2::3",
        "1:::2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "g::", "::1%lo", "1.2.3.4::",
        "::1.2.3", "[::1]", "::+1", ":1::", "1:",
    ])
    func refuses(_ text: String) {
        #expect(IPAddress(text) == nil)
        #expect(system(text) == nil || text == "1:2:3:4:5:6:7::8")
    }

    @Test func mutatedTextAgreesWithTheSystem() {
        var random = SplitMix64(seed: 6)
        let samples = ["10.1.2.3", "2001:db8::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "fe80::", "::"].map {
            Array($0.utf8)
        }
        for round in 0..<20_000 {
            let text = String(decoding: random.mutate(samples[round % samples.count]), as: UTF8.self)
            guard !text.contains("\0") else { continue }
            #expect(IPAddress(text)?.bytes == system(text), "\(text.debugDescription)")
        }
    }

    @Test func classes() throws {
        func all(_ texts: [String], _ test: KeyPath<IPAddress, Bool>) {
            for text in texts { #expect(IPAddress(text)?[keyPath: test] == true, "\(text)") }
        }
        func none(_ texts: [String], _ test: KeyPath<IPAddress, Bool>) {
            for text in texts { #expect(IPAddress(text)?[keyPath: test] == false, "\(text)") }
        }
        all(["127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"], \.isLoopback)
        none(["128.0.0.1", "::2", "10.0.0.1"], \.isLoopback)
        all(["169.254.169.254", "fe80::1", "febf::1"], \.isLinkLocal)
        none(["169.253.0.1", "fec0::1"], \.isLinkLocal)
        all(["224.0.0.1", "239.1.1.1", "ff02::1"], \.isMulticast)
        none(["240.0.0.1", "fe00::"], \.isMulticast)
        all(["0.0.0.0", "::"], \.isUnspecified)
        all(
            ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd00::1", "fc00::1"], \.isPrivate
        )
        none(["172.32.0.1", "11.0.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1", "fe80::1"], \.isPrivate)
        all(["255.255.255.255"], \.isBroadcast)
    }

    @Test func socketAddresses() throws {
        for text in ["10.1.2.3", "2001:db8::7"] {
            let address = try #require(IPAddress(text))
            #expect(IPAddress(try SocketAddress(ipAddress: text, port: 9)) == address)
        }
    }

    @Test func networks() throws {
        let ten = try #require(IPNetwork("10.1.2.3/8"))
        #expect(ten.description == "10.0.0.0/8")
        #expect(ten.contains(try #require(IPAddress("10.255.0.1"))))
        #expect(ten.contains(try #require(IPAddress("::ffff:10.0.0.1"))))
        #expect(!ten.contains(try #require(IPAddress("11.0.0.1"))))
        let six = try #require(IPNetwork("2001:db8:0:0:8000::/65"))
        #expect(six.contains(try #require(IPAddress("2001:db8::ffff:0:0:1"))))
        #expect(!six.contains(try #require(IPAddress("2001:db8::1"))))
        #expect(IPNetwork("0.0.0.0/0")?.contains(.v4(7)) == true)
        #expect(IPNetwork("::/0")?.contains(.loopbackV6) == true)
        #expect(IPNetwork("1.2.3.4")?.prefixLength == 32)
        for bad in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "x/8", "/8", "10.0.0.0/8/8"] {
            #expect(IPNetwork(bad) == nil)
        }
    }
}
