import Foundation
import TOMLKit

/// A value of a TOML document, detached from the parser that read it. Dates and times are texts.
package indirect enum TOMLValue: Hashable, Sendable {
    case string(String)
    case integer(Int64)
    case float(Double)
    case boolean(Bool)
    case array([TOMLValue])
    case table([String: TOMLValue])

    /// Reads a document as a table.
    ///
    /// - Throws: ``TOMLError`` with the line.
    package init(parsing text: String) throws(TOMLError) {
        do {
            let table = try TOMLTable(string: text)
            self = .table([:])
            // Through JSON, because the parser's own values refer to memory that its table frees.
            self = try JSONDecoder().decode(TOMLValue.self, from: Data(table.convert(to: .json).utf8))
        } catch let error as TOMLParseError {
            throw TOMLError(line: error.source.begin.line, reason: error.description)
        } catch {
            throw TOMLError(line: 0, reason: "\(error)")
        }
    }

    /// The value below a path of keys; nil when something on the way is missing or no table.
    package subscript(path: [String]) -> TOMLValue? {
        var value = self
        for key in path {
            guard case .table(let table) = value, let next = table[key] else { return nil }
            value = next
        }
        return value
    }

    package var string: String? { if case .string(let text) = self { text } else { nil } }
    package var boolean: Bool? { if case .boolean(let value) = self { value } else { nil } }
    package var table: [String: TOMLValue]? { if case .table(let table) = self { table } else { nil } }
    package var array: [TOMLValue]? { if case .array(let array) = self { array } else { nil } }
    package var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .float(let value): Int64(exactly: value)
        default: nil
        }
    }

    // MARK: Writing

    /// The value on one line: literal strings where possible, as the Go original writes them.
    package var inlineText: String {
        switch self {
        case .string(let text): Self.stringText(text)
        case .integer(let value): "\(value)"
        case .float(let value): "\(value)"
        case .boolean(let value): "\(value)"
        case .array(let values): "[" + values.map(\.inlineText).joined(separator: ", ") + "]"
        case .table(let table):
            "{"
                + table.sorted { $0.key < $1.key }
                .map { "\(TOMLDocument.keyText([$0.key], quote: "'")) = \($0.value.inlineText)" }.joined(
                    separator: ", ") + "}"
        }
    }

    /// A text in single quotes, or in double quotes with escapes where it must be.
    package static func stringText(_ text: String) -> String {
        let isLiteral = text.unicodeScalars.allSatisfy {
            $0 != "'" && ($0.value >= 0x20 || $0 == "\t") && $0.value != 0x7f
        }
        return isLiteral ? "'\(text)'" : TOMLDocument.basicString(text)
    }

    /// The lines of a table under a header: plain values first, then the tables below, each sorted by key.
    package static func tableLines(_ table: [String: TOMLValue], path: [String]) -> [String] {
        var lines = ["[\(TOMLDocument.keyText(path, quote: "'"))]"]
        let sorted = table.sorted { $0.key < $1.key }
        for (key, value) in sorted where value.table == nil {
            lines.append("\(TOMLDocument.keyText([key], quote: "'")) = \(value.inlineText)")
        }
        for (key, value) in sorted {
            guard let nested = value.table else { continue }
            lines.append("")
            lines += tableLines(nested, path: path + [key])
        }
        // A table that only holds tables needs no header of its own.
        return !table.isEmpty && table.values.allSatisfy { $0.table != nil } ? Array(lines.dropFirst(2)) : lines
    }
}

extension TOMLValue: Decodable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Bool.self) {
            self = .boolean(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .float(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([TOMLValue].self) {
            self = .array(value)
        } else {
            self = .table(try container.decode([String: TOMLValue].self))
        }
    }
}
