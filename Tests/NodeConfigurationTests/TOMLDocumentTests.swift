import NodeConfiguration
import Testing

/// Setting one value of a TOML document and leaving every other byte alone.
@Suite struct TOMLDocumentTests {
    @Test(arguments: [
        ("a = 1\n", ["a"], "2", "a = 2\n"),
        ("a   =\t1  # c\n", ["a"], "2", "a   =\t2  # c\n"),
        ("[t]\na = 1\n", ["t", "b"], "2", "[t]\nb = 2\na = 1\n"),
        ("[t]\n\t a = 1\n", ["t", "b"], "2", "[t]\n\t b = 2\n\t a = 1\n"),
        ("[t] # c\n", ["t", "b"], "2", "[t] # c\n  b = 2\n"),
        ("[t]", ["t", "b"], "2", "[t]\n  b = 2"),
        ("t.a = 1\n", ["t", "b"], "2", "t.a = 1\nt.b = 2\n"),
        ("t = { a = 1 }\n", ["t", "b"], "2", "t = { a = 1, b = 2 }\n"),
        ("t = {}\n", ["t", "b"], "2", "t = { b = 2 }\n"),
        ("t = { u = {a=1} }\n", ["t", "u", "b"], "2", "t = { u = {a=1, b = 2 } }\n"),
        ("", ["t", "b"], "2", "[t]\n  b = 2\n"),
        ("x = 1", ["t", "b"], "2", "x = 1\n\n[t]\n  b = 2\n"),
        ("[p.'q.r']\na = 1\n[z]\n", ["p", "q.r", "s", "b"], "2", "[p.'q.r']\na = 1\n\n[p.'q.r'.s]\n  b = 2\n[z]\n"),
        ("a = '''\n[t]\nb = 1\n'''\n[t]\n", ["t", "b"], "2", "a = '''\n[t]\nb = 1\n'''\n[t]\n  b = 2\n"),
        ("a = [ # [t]\n 1, \"]\",\n]\n[t]\nb = 1\n", ["t", "b"], "2", "a = [ # [t]\n 1, \"]\",\n]\n[t]\nb = 2\n"),
        ("\"t\".'b' = 1\n", ["t", "b"], "2", "\"t\".'b' = 2\n"),
        ("[[t]]\nb = 1\n[u]\nb = 1\n", ["u", "b"], "2", "[[t]]\nb = 1\n[u]\nb = 2\n"),
        ("d = 2020-01-01T00:00:00Z # c\n", ["d"], "2", "d = 2 # c\n"),
        ("[t]\r\na = 1\r\n", ["t", "b"], "2", "[t]\r\nb = 2\r\na = 1\r\n"),
        ("s = \"a\\\"# no comment\" # c\n", ["s"], "2", "s = 2 # c\n"),
    ])
    func setsOneValue(text: String, path: [String], literal: String, expected: String) throws {
        let document = try TOMLDocument(parsing: Array(text.utf8))
        let result = try document.setting(path, to: literal)
        #expect(String(decoding: result.bytes, as: UTF8.self) == expected)
        #expect(result.root[path] == .integer(2))
    }

    /// Random documents: the value set is the only difference for a reader, and the rest is there byte for byte.
    @Test(arguments: 0..<300)
    func randomDocuments(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        let text = Self.document(using: &random)
        let document = try TOMLDocument(parsing: Array(text.utf8))
        for path in [
            ["alpha", "x y", "new"], ["alpha", "new"], ["gamma", "delta", "new"], ["alpha", "x y", "k0"], ["new"],
        ] {
            // A place taken by a value, or by an array of tables, cannot hold a key.
            guard let result = try? document.setting(path, to: "\"set\"") else { continue }
            #expect(result.root[path] == .string("set"), "seed \(seed)")
            var after = result.root, before = document.root
            after.remove(path)
            before.remove(path)
            #expect(
                after == before, "seed \(seed), \(path)\n\(text)\n--\n\(String(decoding: result.bytes, as: UTF8.self))")
            if document.root[path] == nil {
                // Only an insertion: the old text is the new one without one stretch of bytes.
                let old = document.bytes, new = result.bytes
                var prefix = 0
                while prefix < old.count, old[prefix] == new[prefix] { prefix += 1 }
                var suffix = 0
                while suffix < old.count - prefix, old[old.count - 1 - suffix] == new[new.count - 1 - suffix] {
                    suffix += 1
                }
                #expect(prefix + suffix == old.count || text.contains("{"), "seed \(seed)")
            }
        }
    }

    @Test(arguments: 0..<300)
    func mutatedDocumentsNeverTrap(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed) &+ 7919)
        var bytes = Array(Self.document(using: &random).utf8)
        for _ in 0..<Int.random(in: 1...8, using: &random) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0: bytes.remove(at: index)
            case 1: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
            default: bytes[index] = Array("[]{}\"'=.#\n".utf8).randomElement(using: &random) ?? 0
            }
        }
        guard let document = try? TOMLDocument(parsing: bytes) else { return }
        _ = try? document.setting(["alpha", "x y", "new"], to: "1")
    }

    private static func document(using random: inout SeededGenerator) -> String {
        var text = ""
        let values = [
            "1", "true", "'it'", "\"a \\\" # b\"", "[1, 2]", "[\n  'a', # c\n  'b',\n]", "'''\n[no]\nk = 1'''",
            "1979-05-27", "-0.5", "{ a = 1, b = { c = 2 } }",
        ]
        for index in 0..<Int.random(in: 0...3, using: &random) {
            text += "top\(index) = \(values.randomElement(using: &random) ?? "1")\n"
        }
        for header in ["[alpha]", "[alpha.\"x y\"]", "[beta]", "[gamma.delta]", "[alpha.z]", "[[list]]", "[[list]]"]
        where Bool.random(using: &random) {
            let indent = ["", "  ", "\t"].randomElement(using: &random) ?? ""
            if Bool.random(using: &random) { text += "\n" }
            if Bool.random(using: &random) { text += "# [comment]\n" }
            text += indent + header + (Bool.random(using: &random) ? " # why" : "") + "\n"
            for index in 0..<Int.random(in: 0...3, using: &random) {
                text +=
                    indent + "  k\(index) = \(values.randomElement(using: &random) ?? "1")"
                    + (Bool.random(using: &random) ? "  # c" : "") + "\n"
            }
        }
        if Bool.random(using: &random), text.hasSuffix("\n") { text.removeLast() }
        return text
    }
}

extension TOMLValue {
    /// Removes a value, and tables that hold nothing else.
    fileprivate mutating func remove(_ path: [String]) {
        guard case .table(var table) = self, let key = path.first else { return }
        if path.count == 1 {
            table[key] = nil
        } else {
            table[key]?.remove(Array(path.dropFirst()))
            if table[key]?.table?.isEmpty == true { table[key] = nil }
        }
        self = .table(table)
    }
}
