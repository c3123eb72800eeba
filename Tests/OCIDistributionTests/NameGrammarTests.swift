import Foundation
import Testing

@testable import OCIDistribution

/// The grammars, against regular expressions of the specification and the C library.
@Suite struct NameGrammarTests {
    static let repository = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*"

    @Test(arguments: 0..<4 as Range<UInt64>) func repositoriesFollowTheGrammar(seed: UInt64) throws {
        let grammar = try Regex(Self.repository)
        var generator = SeededGenerator(seed: seed)
        var valid = 0
        for _ in 0..<3000 {
            let text = generator.text("ab0._-/_-aA", upTo: 9)
            let reason = withUTF8(of: text, NameGrammar.repositoryError)
            #expect(
                (reason == nil) == (text.wholeMatch(of: grammar) != nil), "seed \(seed): \(text): \(reason ?? "valid")")
            if reason == nil { valid += 1 }
        }
        #expect(valid > 100)
    }

    @Test(arguments: 0..<2 as Range<UInt64>) func tagsFollowTheGrammar(seed: UInt64) throws {
        let grammar = try Regex("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let text = generator.text("aZ9._-/:é ", upTo: 5)
            let reason = withUTF8(of: text, NameGrammar.tagError)
            #expect((reason == nil) == (text.wholeMatch(of: grammar) != nil), "seed \(seed): \(text)")
        }
        #expect(withUTF8(of: String(repeating: "a", count: 128), NameGrammar.tagError) == nil)
        #expect(withUTF8(of: String(repeating: "a", count: 129), NameGrammar.tagError) != nil)
    }

    @Test func repositoriesAreLimited() {
        #expect(withUTF8(of: String(repeating: "a", count: 255), NameGrammar.repositoryError) == nil)
        #expect(withUTF8(of: String(repeating: "a", count: 256), NameGrammar.repositoryError) != nil)
    }

    @Test(arguments: 0..<4 as Range<UInt64>) func ipAddressesAreThoseOfTheCLibrary(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let seeds = ["::", "::1", "2001:db8::1", "1:2:3:4:5:6:7:8", "::ffff:192.0.2.1", "1::8", "1:2:3:4:5:6:1.2.3.4"]
        var valid = 0
        for _ in 0..<3000 {
            let start = generator.pick(seeds)
            let text = String(
                decoding: generator.mutate(Array(start.utf8), alphabet: Array("0123afF::::..g".utf8)), as: UTF8.self)
            var address = in6_addr()
            let isAddress = inet_pton(AF_INET6, text, &address) == 1
            #expect(withUTF8(of: text, RegistryHost.isIPv6) == isAddress, "seed \(seed): \(text)")
            if isAddress { valid += 1 }

            let quad = String(
                decoding: generator.mutate(Array("192.0.2.255".utf8), alphabet: Array("0123456789..".utf8)),
                as: UTF8.self)
            var v4 = in_addr()
            let isQuad = inet_pton(AF_INET, quad, &v4) == 1
            #expect(withUTF8(of: quad) { RegistryHost.isIPv4($0[...]) } == isQuad, "seed \(seed): \(quad)")
        }
        #expect(valid > 100)
    }

    @Test(arguments: [
        "docker.io", "localhost", "localhost:5000", "LOCALHOST", "a-b.c", "192.0.2.1", "192.0.2.1:80", "[::1]",
        "[::1]:5000",
        "[2001:db8::1]:65535", "xn--bcher-kva.example", "a:1", "3com.example",
        "my_registry:5000", "a_b", "a__b.c_d",
    ])
    func acceptsHosts(host: String) {
        #expect(withUTF8(of: host, RegistryHost.validationError) == nil)
    }

    @Test(arguments: [
        "", ":5000", "a:", "a:0", "a:65536", "a:123456", "a:+1", "a:1:2", "a..b", ".a", "a.", "-a", "a-", "a.-b",
        "a-.b",
        "_default", "_a", "a_", "a_.b", "a._b", "a/b", "a b", "a\u{0}", "é.com", "256.1.1.1", "1.2.3", "1234", "[::1",
        "[]", "[::1]x", "[1.2.3.4]",
        "[::1%eth0]",
        "::1", "user@host", String(repeating: "a", count: 64), "a%2eb",
    ])
    func rejectsHosts(host: String) {
        #expect(withUTF8(of: host, RegistryHost.validationError) != nil)
    }
}
