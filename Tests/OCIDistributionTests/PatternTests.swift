import Testing

@testable import OCIDistribution

@Suite struct PatternTests {
    static func matches(_ pattern: String, _ text: String, states: Int = PatternMatcher.maximumStates) throws -> Bool {
        try PatternMatcher([PatternParser.parse(pattern)], maximumStates: states).matches([text[...].utf8])
    }

    @Test(
        arguments: [
            ("abc", "xabcx", "xabx"), ("^abc", "abcx", "xabc"), ("abc$", "xabc", "abcx"), ("^$", "", "a"),
            ("a.c", "a-c", "ac"),
            ("a|b|", "", nil), ("^(a|bc)+$", "abcbca", "abcb"), ("^a{2}$", "aa", "a"), ("^a{2,}$", "aaaa", "a"),
            ("^a{1,3}$", "aaa", "aaaa"), ("^a{0}$", "", "a"), ("^a{,2}$", "a{,2}", "a"), ("a{x}", "a{x}", "ax"),
            ("{", "{", "a"),
            ("^[a-c_]+$", "abc_", "abd"), ("^[^a-c]+$", "xyz", "xaz"), ("^[]a]$", "]", "b"), ("^[^]a]$", "b", "]"),
            ("^[a-]$", "-", "b"), ("^[\\d.]+$", "1.2", "1a2"), ("^[[:alpha:][:digit:]]+$", "a1", "a-"),
            ("^[[:^alpha:]]$", "1", "a"),
            ("^\\d+\\D\\w\\W\\s\\S$", "12a_- x", "12a_-xx"), ("\\bcat\\b", "a cat.", "concat"),
            ("\\Bcat", "concat", "a cat"),
            ("\\Aab\\z", "ab", "abc"), ("^\\Qa.b*\\E+$", "a.b**", "aab"), ("\\Q.", ".", "a"),
            ("\\.\\*\\\\", ".*\\", "..\\"),
            ("\\x41\\x{42}\\103", "ABC", "ABD"), ("\\t\\n\\r\\f\\v\\a", "\t\n\r\u{0C}\u{0B}\u{07}", "t"),
            ("\\0", "\0", "0"),
            ("(?i)aB", "Ab", "Ac"), ("(?i:a)b", "Ab", "AB"), ("a(?i)b|c", "C", "A"), ("((?i)a)b", "Ab", "AB"),
            ("(?i)[^a]", "b", "A"),
            ("(?-i)a", "a", "A"), ("(?s)a.b", "a\nb", "ab"), ("a.b", "a.b", "a\nb"), ("(?m)^a$", "a", "ab"),
            ("(?U)a+", "a", "b"),
            ("(?P<name>a)(?<other>b)(?:c)", "abc", "ab"), ("a+?b*?c??", "a", "c"), ("é", nil, "e"),
            ("^é?$", "", "z"), ("^[!-é]$", "z", " "),
            ("^(a*)*$", "aaa", "b"), ("^(a|a?)+$", "aa", "b"), ("", "", nil), ("^*a", "a", "b"), ("()", "", nil),
            ("x*", "", nil),
        ] as [(String, String?, String?)])
    func followsRE2(pattern: String, match: String?, miss: String?) throws {
        for states in [PatternMatcher.maximumStates, 0, 1, 2] {
            if let match { #expect(try Self.matches(pattern, match, states: states)) }
            if let miss { #expect(try !Self.matches(pattern, miss, states: states)) }
        }
    }

    @Test(arguments: [
        "(", ")", "a)", "(a", "[a", "[", "[]", "[z-a]", "[[:nope:]]", "*", "+a", "a|*", "(*)", "a**", "a{2}{3}",
        "a{2,1}", "a{1001}",
        "a{99999999999999999999}", "\\", "\\1", "\\8", "\\pL", "\\Z", "\\xZZ", "\\x{110000}", "\\x{", "\\x4", "(?=a)",
        "(?!a)", "(?<=a)",
        "(?<!a)", "(?>a)", "(?P=a)", "(?P<>a)", "(?P<a-b>c)", "(?z)a", "(?", "(?i", "[\\d-z-\\d]", "[a-\\d]",
        "((((a{9}){9}){9}){9}){9}", "(((((){1000}){1000}){1000}){1000}){1000}", String(repeating: "(", count: 1000),
        String(repeating: "a", count: 5000),
    ])
    func refuses(pattern: String) {
        #expect { try Self.matches(pattern, "") } throws: { error in
            error is PatternError && "\(error)".utf8.count < 200
        }
    }

    /// A tree that both implementations can spell.
    private static func random(_ generator: inout SeededGenerator, depth: Int) -> String {
        switch generator.below(depth > 3 ? 6 : 11) {
        case 0, 1: generator.pick(["a", "b", "-", "c"])
        case 2: generator.pick([".", "[ab]", "[^a]", "[^b-c]", "\\w", "\\d", "[a-c]"])
        case 3: generator.pick(["^", "$", "", "a"])
        case 4, 5: generator.pick(["ab", "b-", "a1"])
        case 6:
            "(?:" + random(&generator, depth: depth + 1) + ")"
                + generator.pick(["*", "+", "?", "{2}", "{1,2}", "{2,}"])
        case 7: "(?:" + random(&generator, depth: depth + 1) + "|" + random(&generator, depth: depth + 1) + ")"
        default: random(&generator, depth: depth + 1) + random(&generator, depth: depth + 1)
        }
    }

    /// Against the standard library's engine, with texts short enough for it to backtrack.
    @Test(arguments: 0..<4 as Range<UInt64>) func agreesWithAnotherEngine(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var count = 0
        for _ in 0..<150 {
            let pattern = Self.random(&generator, depth: 0)
            let oracle = try Regex(pattern).matchingSemantics(.unicodeScalar)
            let node = try PatternParser.parse(pattern)
            let full = try PatternMatcher([node])
            let partial = try PatternMatcher([node], maximumStates: 2)
            let none = try PatternMatcher([node], maximumStates: 0)
            for _ in 0..<8 {
                let text = generator.text("aabbc-1", upTo: 7)
                let expected = text.firstMatch(of: oracle) != nil
                let cut = text.index(text.startIndex, offsetBy: generator.below(text.count + 1))
                let parts = [text[..<cut].utf8, text[cut...].utf8]
                #expect(full.matches(parts) == expected, "seed \(seed): \(pattern) in \"\(text)\"")
                #expect(partial.matches(parts) == expected, "seed \(seed): \(pattern) in \"\(text)\"")
                #expect(none.matches(parts) == expected, "seed \(seed): \(pattern) in \"\(text)\"")
                if expected { count += 1 }
            }
        }
        #expect(count > 100 && count < 1100)
    }

    @Test func severalPatternsAreSearchedAtOnce() throws {
        let matcher = try PatternMatcher(["^a$", "bb", "(?i)c"].map { try PatternParser.parse($0) })
        for (text, expected) in [("a", true), ("aa", false), ("xbbx", true), ("C", true), ("ab", false)] {
            #expect(matcher.matches([text[...].utf8]) == expected)
        }
        #expect(try !PatternMatcher([]).matches([""[...].utf8]))
    }

    /// Patterns that take a backtracking engine longer than the age of the universe.
    @Test(arguments: ["(a+)+$", "^(a|aa)+$", "(.*)*b", "(a?){60}a{60}$", "(x+x+)+y", "[ab]*a[ab]{30}z"])
    func timeIsBoundedWhateverThePattern(pattern: String) throws {
        let name = String(repeating: "a", count: 255) + "!"
        let filter = try ReferenceFilter(mirroredRegistries: [], patterns: [pattern])
        for _ in 0..<20 { _ = filter.allows(registry: "docker.io", repository: name, tag: name) }
        #expect(filter.allows(registry: "docker.io", repository: name, tag: nil))
    }

    @Test(arguments: 0..<3 as Range<UInt64>) func mutatedPatternsNeverCrash(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let seeds = ["^(quay\\.io|ghcr\\.io)/team-[0-9]+/.*", "(?i)[[:alpha:]]{2,3}\\b\\x{41}", "(?P<n>a)*?|\\Qx\\E$"]
        let alphabet = Array("()[]{}*+?|\\^$.-:,0129aQEPxbi<>é".utf8)
        var valid = 0
        for _ in 0..<1000 {
            let bytes = generator.mutate(Array(generator.pick(seeds).utf8), alphabet: alphabet)
            guard let node = try? PatternParser.parse(String(decoding: bytes, as: UTF8.self)) else { continue }
            guard let full = try? PatternMatcher([node], maximumStates: 64),
                let none = try? PatternMatcher([node], maximumStates: 0)
            else { continue }
            valid += 1
            let text = generator.text("quay.io/tem-01AbX ", upTo: 20)
            #expect(full.matches([text[...].utf8]) == none.matches([text[...].utf8]), "seed \(seed)")
        }
        #expect(valid > 100)
    }
}
