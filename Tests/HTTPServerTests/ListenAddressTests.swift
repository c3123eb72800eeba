import NIOCore
import Testing

@testable import HTTPServer

@Suite struct ListenAddressTests {
    @Test(
        arguments: [
            (":5000", nil, 5000), ("0.0.0.0:0", "0.0.0.0", 0), ("[::1]:5000", "::1", 5000),
            ("localhost:65535", "localhost", 65535),
            ("[::]:1", "::", 1), ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
            ("node-1.example:443", "node-1.example", 443),
        ] as [(String, String?, UInt16)])
    func parses(text: String, host: String?, port: UInt16) throws {
        let address = try ListenAddress(parsing: text)
        #expect(address.host == host)
        #expect(address.port == port)
        #expect(address.description == text)
        #expect(ListenAddress(text) == address)
    }

    @Test(arguments: [
        "", ":", "5000", "host", "host:", ":65536", ":-1", ":+1", ":1x", "::1:5000", "[::1:5000", "::1]:5000", "[]:1",
        "[host]:1", "a b:1", "http://a:1", "a/b:1", ":５", "[::1]x:1", "a\u{0}:1",
    ])
    func refusesAndNamesTheInput(text: String) {
        let error = #expect(throws: ListenAddress.ParseError.self) { try ListenAddress(parsing: text) }
        #expect(error?.input == text)
        #expect(error?.description.contains("\"\(text)\"") == true)
        #expect(ListenAddress(text) == nil)
    }

    @Test func nameWithSeveralAddressesGivesEachOnce() throws {
        let addresses = try ListenAddress(host: "localhost", port: 7).socketAddresses()
        #expect(!addresses.isEmpty)
        #expect(Set(addresses).count == addresses.count)
        #expect(addresses.allSatisfy { $0.port == 7 })
        // Unknown without a name server being asked, which might take long and holds up a thread of the pool: no label
        // has more than 63 characters.
        let unknown = String(repeating: "x", count: 64) + ".invalid"
        #expect(throws: ListenError.self) { try ListenAddress(host: unknown, port: 7).socketAddresses() }
    }
}
