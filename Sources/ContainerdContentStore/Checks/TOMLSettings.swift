#if Containerd
    /// The plain settings of a TOML file: tables and single-line `key = value` pairs.
    ///
    /// It reads what containerd's settings of interest look like. Values over several lines are skipped, not understood.
    struct TOMLSettings: Sendable {
        /// Values by table and key, with quotation marks removed: `["plugins", "x", "registry", "config_path"]`.
        private var values: [[String]: String] = [:]

        /// Larger files are no configuration of containerd, in bytes.
        static let sizeLimit = 1 << 20

        /// Reads a file's text.
        init(_ text: String) {
            var table: [String] = []
            for line in text.split(whereSeparator: \.isNewline) {
                let line = Self.withoutComment(line)
                guard !line.isEmpty else { continue }
                if line.hasPrefix("[") {
                    let name = line.drop { $0 == "[" || $0 == " " }.reversed().drop { $0 == "]" || $0 == " " }
                        .reversed()
                    table = Self.keyPath(String(name))
                    continue
                }
                guard let equals = Self.index(of: "=", in: line) else { continue }
                let key = Self.keyPath(String(line[..<equals]))
                let value = line[line.index(after: equals)...].trimmed
                guard !key.isEmpty, !value.isEmpty else { continue }
                values[table + key] = Self.unquoted(value)
            }
        }

        /// The value of a key in a table.
        subscript(path: String...) -> String? { values[path] }

        /// The value of a key in a table.
        subscript(path: [String]) -> String? { values[path] }

        private static func withoutComment(_ line: Substring) -> String {
            guard let comment = index(of: "#", in: String(line)) else { return String(line).trimmed }
            return String(line)[..<comment].trimmed
        }

        /// The first occurrence outside quotation marks.
        private static func index(of character: Character, in text: String) -> String.Index? {
            var quote: Character?
            for index in text.indices {
                let current = text[index]
                if let open = quote {
                    if current == open { quote = nil }
                } else if current == "\"" || current == "'" {
                    quote = current
                } else if current == character {
                    return index
                }
            }
            return nil
        }

        /// Splits `plugins."io.containerd.grpc.v1.cri".registry` at the dots outside quotation marks.
        private static func keyPath(_ text: String) -> [String] {
            var parts: [String] = []
            var rest = text
            while let dot = index(of: ".", in: rest) {
                parts.append(unquoted(rest[..<dot].trimmed))
                rest = String(rest[rest.index(after: dot)...])
            }
            parts.append(unquoted(rest.trimmed))
            return parts
        }

        private static func unquoted(_ text: String) -> String {
            guard text.count >= 2, let first = text.first, first == text.last, first == "\"" || first == "'" else {
                return text
            }
            return String(text.dropFirst().dropLast())
        }
    }

    extension StringProtocol {
        fileprivate var trimmed: String {
            String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
        }
    }
#endif
