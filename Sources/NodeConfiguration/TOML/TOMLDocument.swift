/// Why a file is not the TOML that was expected.
public struct TOMLError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The line, from 1; 0 when the whole text is meant.
    public var line: Int
    /// What is wrong there.
    public var reason: String

    /// The line and the reason.
    public var description: String { line > 0 ? "line \(line): \(reason)" : reason }
}

/// A TOML document that keeps every byte: where each key and table stands, so that one value can be set and nothing else
/// changes.
///
/// The values themselves are read by TOMLKit; this type knows positions only. The TOML specification is version 1.0.0.
package struct TOMLDocument: Sendable {
    /// Larger documents are refused, in bytes. containerd's own default configuration is 12 KiB.
    package static let maximumLength = 1 << 20
    /// Deeper nesting of arrays and inline tables is refused.
    private static let maximumDepth = 64

    /// One `key = value`, also within an inline table.
    package struct Assignment: Sendable {
        /// The full path, tables included.
        package var path: [String]
        /// The path of the table that the line stands in.
        package var table: [String]
        /// The bytes of the value.
        package var value: Range<Int>
        /// The bytes from the line's start to its end, without the line break.
        package var line: Range<Int>
        /// Whether the table is an element of an array, whose keys are not unique.
        package var isInArray: Bool
        /// Whether it stands within an inline table.
        package var isInline: Bool
    }

    /// One `[table]` or `[[array of tables]]`.
    package struct Header: Sendable {
        package var path: [String]
        /// The bytes from the line's start to its end, without the line break.
        package var line: Range<Int>
        package var isArray: Bool
    }

    private struct InlineTable: Sendable {
        var path: [String]
        /// Where the closing brace stands.
        var end: Int
        var isEmpty: Bool
        var isInArray: Bool
    }

    package private(set) var bytes: [UInt8]
    /// The values, as TOMLKit reads them.
    package private(set) var root: TOMLValue
    package private(set) var assignments: [Assignment] = []
    package private(set) var headers: [Header] = []
    private var inlineTables: [InlineTable] = []

    /// Reads a document.
    ///
    /// - Throws: ``TOMLError`` with the line, also for duplicate tables and keys, a byte-order mark, and text that is not UTF-8.
    package init(parsing bytes: [UInt8]) throws(TOMLError) {
        guard bytes.count <= Self.maximumLength else {
            throw TOMLError(line: 0, reason: "larger than \(Self.maximumLength) bytes")
        }
        guard !bytes.starts(with: [0xef, 0xbb, 0xbf]) else {
            throw TOMLError(
                line: 1, reason: "begins with a byte-order mark, which not every containerd accepts; remove it")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TOMLError(line: 0, reason: "not UTF-8")
        }
        self.bytes = bytes
        root = .table([:])
        // First, as the library's parser is not made for every text that is no TOML.
        try scan()
        root = try TOMLValue(parsing: text)
    }

    /// Whether a table of this path, or a key below it, stands anywhere.
    package func mentions(_ path: [String]) -> Bool {
        headers.contains { $0.path.starts(with: path) } || assignments.contains { $0.path.starts(with: path) }
    }

    /// The number of the line in which a byte stands, from 1.
    package func line(of offset: Int) -> Int { 1 + bytes[..<min(offset, bytes.count)].count { $0 == 0x0a } }

    // MARK: Setting a value

    /// The document with one value set, in the way that changes least: an existing value is replaced; otherwise a line is
    /// added to the key's table, or the table is added behind its nearest relative.
    ///
    /// - Parameters:
    ///   - path: The key with its tables, at least one element.
    ///   - literal: The value as TOML.
    /// - Throws: ``TOMLError`` when there is no place where the key could stand.
    package func setting(_ path: [String], to literal: String) throws(TOMLError) -> TOMLDocument {
        var edited = bytes
        edit(&edited, path: path, literal: literal)
        return try TOMLDocument(parsing: edited)
    }

    private func edit(_ edited: inout [UInt8], path: [String], literal: String) {
        if let existing = assignments.first(where: { $0.path == path && !$0.isInArray }) {
            edited.replaceSubrange(existing.value, with: literal.utf8)
            return
        }
        let table = Array(path.dropLast())
        // The table, or one above it, is written as an inline table.
        if let inline = inlineTables.filter({ table.starts(with: $0.path) && !$0.isInArray })
            .max(by: { $0.path.count < $1.path.count })
        {
            let key = Self.keyText(Array(path[inline.path.count...]), quote: quote)
            let separator = inline.isEmpty ? " " : ", "
            var at = inline.end
            while at > 0, edited[at - 1] == 0x20 || edited[at - 1] == 0x09 { at -= 1 }
            edited.replaceSubrange(at..<inline.end, with: "\(separator)\(key) = \(literal) ".utf8)
            return
        }
        if let header = headers.last(where: { $0.path == table && !$0.isArray }) {
            let sibling = assignments.first {
                $0.table == table && !$0.isInline && $0.line.lowerBound > header.line.upperBound
            }
            let indent =
                sibling.map { indentation(at: $0.line.lowerBound) } ?? indentation(at: header.line.lowerBound) + "  "
            insertLine(
                "\(indent)\(Self.keyText([path[path.count - 1]], quote: quote)) = \(literal)", after: header.line,
                in: &edited)
            return
        }
        // The table exists through dotted keys of a table above it, and may not be opened by a header.
        if let dotted = assignments.last(where: {
            !$0.isInArray && !$0.isInline && $0.table.count < table.count && $0.path.count > table.count
                && $0.path.starts(with: table)
        }) {
            let key = Self.keyText(Array(path[dotted.table.count...]), quote: quote)
            insertLine("\(indentation(at: dotted.line.lowerBound))\(key) = \(literal)", after: dotted.line, in: &edited)
            return
        }
        if table.isEmpty {
            // Before everything else, as what follows a header belongs to that.
            let line = "\(Self.keyText(path, quote: quote)) = \(literal)" + lineBreak
            edited.insert(contentsOf: line.utf8, at: 0)
            return
        }
        appendTable(table, key: path[path.count - 1], literal: literal, to: &edited)
    }

    private func appendTable(_ table: [String], key: String, literal: String, to edited: inout [UInt8]) {
        // The relative with the longest common path; at least the plugin must be the same.
        let relatives = headers.filter { !$0.isArray }.map { (header: $0, common: Self.commonPrefix($0.path, table)) }
        let best = relatives.map(\.common).max() ?? 0
        guard best >= 2 || (best >= 1 && best == table.count - 1),
            let relative = relatives.last(where: { $0.common == best })?.header
        else {
            let name = Self.keyText(table, quote: quote)
            var text = edited.isEmpty ? "" : (edited.last == 0x0a ? lineBreak : lineBreak + lineBreak)
            text += "[\(name)]" + lineBreak + "  \(Self.keyText([key], quote: quote)) = \(literal)" + lineBreak
            edited.append(contentsOf: text.utf8)
            return
        }
        // Behind the relative's own lines, which end where the next header begins.
        let last =
            assignments.last {
                $0.line.lowerBound > relative.line.upperBound && $0.table == relative.path && !$0.isInline
            }?
            .line ?? relative.line
        let base =
            relative.path.count < table.count
            ? indentation(at: relative.line.lowerBound) + "  " : indentation(at: relative.line.lowerBound)
        let indent =
            relative.path.isEmpty || indentation(at: relative.line.lowerBound).isEmpty && !indentsTables ? "" : base
        let header = "\(indent)[\(Self.keyText(table, quote: quote))]"
        let line = "\(indent)  \(Self.keyText([key], quote: quote)) = \(literal)"
        insertLine(lineBreak + header + lineBreak + line, after: last, in: &edited)
    }

    /// Whether tables below others are indented in this document.
    private var indentsTables: Bool { headers.contains { !indentation(at: $0.line.lowerBound).isEmpty } }

    private func insertLine(_ text: String, after line: Range<Int>, in edited: inout [UInt8]) {
        // The rest of the line, a comment or a carriage return, stays where it is.
        guard let end = edited[line.upperBound...].firstIndex(of: 0x0a) else {
            edited.append(contentsOf: (lineBreak + text).utf8)
            return
        }
        edited.insert(contentsOf: (text + lineBreak).utf8, at: end + 1)
    }

    private var lineBreak: String {
        guard let end = bytes.firstIndex(of: 0x0a), end > 0, bytes[end - 1] == 0x0d else { return "\n" }
        return "\r\n"
    }

    /// The quotation mark that this document's headers use.
    private var quote: Character {
        for header in headers {
            for byte in bytes[header.line] where byte == 0x22 || byte == 0x27 { return byte == 0x22 ? "\"" : "'" }
        }
        return "\""
    }

    private func indentation(at lineStart: Int) -> String {
        let end = bytes[lineStart...].firstIndex { $0 != 0x20 && $0 != 0x09 } ?? bytes.count
        return String(decoding: bytes[lineStart..<end], as: UTF8.self)
    }

    private static func commonPrefix(_ left: [String], _ right: [String]) -> Int {
        var count = 0
        while count < left.count, count < right.count, left[count] == right[count] { count += 1 }
        return count
    }

    /// A dotted key, quoted where it must be.
    package static func keyText(_ path: [String], quote: Character = "\"") -> String {
        path.map { part in
            let isBare = !part.isEmpty && part.utf8.allSatisfy { isBareKey($0) }
            if isBare { return part }
            return quote == "'" && !part.contains("'")
                && part.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f }
                ? "'\(part)'" : basicString(part)
        }.joined(separator: ".")
    }

    /// A text as a basic string, with what must be escaped escaped.
    package static func basicString(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let hex = String(scalar.value, radix: 16, uppercase: true)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    // MARK: Scanning

    private mutating func scan() throws(TOMLError) {
        var scanner = Scanner(bytes: bytes)
        var table: [String] = []
        var isInArray = false
        var arrays: Set<[String]> = []
        while !scanner.isAtEnd {
            let lineStart = scanner.position
            scanner.skipBlank()
            guard let byte = scanner.peek else { break }
            switch byte {
            case 0x0a, 0x0d, 0x23:
                scanner.skipLine()
            case 0x5b:
                scanner.position += 1
                let isArray = scanner.peek == 0x5b
                if isArray { scanner.position += 1 }
                let path = try scanner.keyPath()
                try scanner.expect(0x5d)
                if isArray { try scanner.expect(0x5d) }
                let line = lineStart..<scanner.position
                headers.append(Header(path: path, line: line, isArray: isArray))
                if isArray { arrays.insert(path) }
                table = path
                isInArray = arrays.contains { path.starts(with: $0) }
                scanner.skipLine()
            default:
                let key = try scanner.keyPath()
                try scanner.expect(0x3d)
                scanner.skipBlank()
                let start = scanner.position
                try skipValue(&scanner, path: table + key, isInArray: isInArray, depth: 0)
                assignments.append(
                    Assignment(
                        path: table + key, table: table, value: start..<scanner.position,
                        line: lineStart..<scanner.position, isInArray: isInArray, isInline: false))
                scanner.skipLine()
            }
        }
    }

    private mutating func skipValue(
        _ scanner: inout Scanner, path: [String], isInArray: Bool, depth: Int
    ) throws(TOMLError) {
        guard depth < Self.maximumDepth else { throw scanner.error("nested deeper than \(Self.maximumDepth)") }
        switch scanner.peek {
        case 0x22, 0x27:
            _ = try scanner.string()
        case 0x5b:
            scanner.position += 1
            while true {
                scanner.skipBlankAndLines()
                if scanner.peek == 0x5d {
                    scanner.position += 1
                    return
                }
                try skipValue(&scanner, path: path, isInArray: true, depth: depth + 1)
                scanner.skipBlankAndLines()
                if scanner.peek == 0x2c {
                    scanner.position += 1
                } else if scanner.peek != 0x5d {
                    throw scanner.error("an array is not closed")
                }
            }
        case 0x7b:
            scanner.position += 1
            var isEmpty = true
            while true {
                scanner.skipBlankAndLines()
                if scanner.peek == 0x7d {
                    inlineTables.append(
                        InlineTable(path: path, end: scanner.position, isEmpty: isEmpty, isInArray: isInArray))
                    scanner.position += 1
                    return
                }
                isEmpty = false
                let lineStart = scanner.position
                let key = try scanner.keyPath()
                try scanner.expect(0x3d)
                scanner.skipBlank()
                let start = scanner.position
                try skipValue(&scanner, path: path + key, isInArray: isInArray, depth: depth + 1)
                assignments.append(
                    Assignment(
                        path: path + key, table: path, value: start..<scanner.position,
                        line: lineStart..<scanner.position, isInArray: isInArray, isInline: true))
                scanner.skipBlankAndLines()
                if scanner.peek == 0x2c {
                    scanner.position += 1
                } else if scanner.peek != 0x7d {
                    throw scanner.error("an inline table is not closed")
                }
            }
        case nil:
            throw scanner.error("a value is missing")
        default:
            try scanner.skipScalar()
        }
    }

    fileprivate static func isBareKey(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x5f: true
        default: false
        }
    }
}

/// Walks over the bytes of a document that is known to be TOML.
private struct Scanner {
    let bytes: [UInt8]
    var position = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    var isAtEnd: Bool { position >= bytes.count }
    var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    func error(_ reason: String) -> TOMLError {
        TOMLError(line: 1 + bytes[..<min(position, bytes.count)].count { $0 == 0x0a }, reason: reason)
    }

    mutating func skipBlank() {
        while let byte = peek, byte == 0x20 || byte == 0x09 { position += 1 }
    }

    /// Skips to behind the line break.
    mutating func skipLine() {
        while let byte = peek {
            position += 1
            if byte == 0x0a { return }
        }
    }

    mutating func skipBlankAndLines() {
        while let byte = peek {
            switch byte {
            case 0x20, 0x09, 0x0a, 0x0d: position += 1
            case 0x23: skipLine()
            default: return
            }
        }
    }

    mutating func expect(_ byte: UInt8) throws(TOMLError) {
        skipBlank()
        guard peek == byte else { throw error("'\(Character(UnicodeScalar(byte)))' is missing") }
        position += 1
    }

    mutating func keyPath() throws(TOMLError) -> [String] {
        var path: [String] = []
        while true {
            skipBlank()
            if peek == 0x22 || peek == 0x27 {
                path.append(try string())
            } else {
                let start = position
                while let byte = peek, TOMLDocument.isBareKey(byte) { position += 1 }
                guard position > start else { throw error("a key is missing") }
                path.append(String(decoding: bytes[start..<position], as: UTF8.self))
            }
            skipBlank()
            guard peek == 0x2e else { return path }
            position += 1
        }
    }

    /// Skips a string of any of the four kinds and returns the text of a single-line one.
    mutating func string() throws(TOMLError) -> String {
        guard let mark = peek else { throw error("a string is missing") }
        if bytes[position...].starts(with: [mark, mark, mark]) {
            position += 3
            while !isAtEnd {
                if mark == 0x22, peek == 0x5c {
                    position = min(position + 2, bytes.count)
                } else if bytes[position...].starts(with: [mark, mark, mark]) {
                    position += 3
                    // Up to two more marks belong to the text.
                    while peek == mark { position += 1 }
                    return ""
                } else {
                    position += 1
                }
            }
            throw error("a string is not closed")
        }
        position += 1
        var text: [UInt8] = []
        while let byte = peek, byte != 0x0a {
            if byte == mark {
                position += 1
                return String(decoding: text, as: UTF8.self)
            }
            if mark == 0x22, byte == 0x5c {
                position += 1
                try appendEscape(to: &text)
            } else {
                text.append(byte)
                position += 1
            }
        }
        throw error("a string is not closed")
    }

    private mutating func appendEscape(to text: inout [UInt8]) throws(TOMLError) {
        guard let kind = peek else { throw error("a string is not closed") }
        position += 1
        let simple: [UInt8: UInt8] = [
            0x62: 0x08, 0x74: 0x09, 0x6e: 0x0a, 0x66: 0x0c, 0x72: 0x0d, 0x22: 0x22, 0x5c: 0x5c,
        ]
        if let byte = simple[kind] {
            text.append(byte)
            return
        }
        let length = kind == 0x75 ? 4 : kind == 0x55 ? 8 : 0
        guard length > 0, position + length <= bytes.count,
            let value = UInt32(String(decoding: bytes[position..<position + length], as: UTF8.self), radix: 16),
            let scalar = UnicodeScalar(value)
        else { throw error("an escape is not valid") }
        position += length
        text.append(contentsOf: Array(String(Character(scalar)).utf8))
    }

    /// Skips a number, a boolean or a date.
    mutating func skipScalar() throws(TOMLError) {
        let start = position
        while let byte = peek, byte != 0x2c, byte != 0x5d, byte != 0x7d, byte != 0x0a, byte != 0x0d, byte != 0x23 {
            position += 1
        }
        while position > start, bytes[position - 1] == 0x20 || bytes[position - 1] == 0x09 { position -= 1 }
        guard position > start else { throw error("a value is missing") }
    }
}
