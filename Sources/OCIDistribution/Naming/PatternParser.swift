/// Parses regular expressions in the syntax of RE2, as Go programs take them.
///
/// Names are ASCII, so that other characters are accepted but match nothing; classes of Unicode properties are refused.
/// Greedy or not makes no difference to whether there is a match, and neither does the multi-line flag in names that
/// have no lines.
struct PatternParser {
    private let text: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    private var ignoresCase = false
    private var dotTakesNewline = false

    /// Characters of a pattern, and groups within groups.
    private static let maximumLength = 4096
    private static let maximumDepth = 100

    /// The largest number of a counted repetition, as in RE2.
    private static let maximumCount = 1000

    static func parse(_ pattern: String) throws(PatternError) -> PatternNode {
        var parser = PatternParser(text: Array(pattern.unicodeScalars))
        guard parser.text.count <= maximumLength else {
            throw PatternError(description: "longer than \(maximumLength) characters")
        }
        let node = try parser.parseChoice()
        guard parser.peek == nil else { throw parser.error("unexpected )") }
        return node
    }

    private init(text: [Unicode.Scalar]) { self.text = text }

    private var peek: Unicode.Scalar? { position < text.count ? text[position] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard peek == scalar else { return false }
        position += 1
        return true
    }

    private mutating func take(_ prefix: String) -> Bool {
        guard text[position...].starts(with: prefix.unicodeScalars) else { return false }
        position += prefix.unicodeScalars.count
        return true
    }

    private mutating func next() throws(PatternError) -> Unicode.Scalar {
        guard let scalar = peek else { throw error("unexpected end") }
        position += 1
        return scalar
    }

    private func error(_ reason: String) -> PatternError {
        PatternError(description: "\(reason) at character \(position)")
    }

    /// `a|b|c`, up to a closing parenthesis or the end.
    private mutating func parseChoice() throws(PatternError) -> PatternNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else { throw error("groups are nested too deeply") }
        var choices = [try parseSequence()]
        while take("|") { choices.append(try parseSequence()) }
        return choices.count == 1 ? choices[0] : .choice(choices)
    }

    private mutating func parseSequence() throws(PatternError) -> PatternNode {
        var parts: [PatternNode] = []
        while let scalar = peek, scalar != "|", scalar != ")" {
            if take("\\Q") {
                while let literal = peek, !take("\\E") {
                    position += 1
                    parts.append(node(literal))
                }
                // What repeats is the last character.
                if let last = parts.popLast() { parts.append(try parseRepetition(of: last)) }
                continue
            }
            // Flags for the rest of the group have nothing to repeat.
            guard let atom = try parseAtom() else { continue }
            parts.append(try parseRepetition(of: atom))
        }
        return parts.count == 1 ? parts[0] : parts.isEmpty ? .empty : .sequence(parts)
    }

    private mutating func parseRepetition(of atom: PatternNode) throws(PatternError) -> PatternNode {
        guard let (minimum, maximum) = try parseCount() else { return atom }
        _ = take("?")
        let before = position
        if try parseCount() != nil {
            position = before
            throw error("repetition of a repetition")
        }
        return .repetition(atom, minimum: minimum, maximum: maximum)
    }

    /// `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}`; braces of any other form stand for themselves.
    private mutating func parseCount() throws(PatternError) -> (Int, Int?)? {
        if take("*") { return (0, nil) }
        if take("+") { return (1, nil) }
        if take("?") { return (0, 1) }
        let start = position
        guard take("{"), let minimum = parseNumber() else {
            position = start
            return nil
        }
        var maximum: Int? = minimum
        if take(",") { maximum = parseNumber() }
        guard take("}") else {
            position = start
            return nil
        }
        guard minimum <= Self.maximumCount, maximum ?? 0 <= Self.maximumCount else {
            throw error("a repetition is counted beyond \(Self.maximumCount)")
        }
        if let maximum, maximum < minimum { throw error("a repetition ends before it begins") }
        return (minimum, maximum)
    }

    private mutating func parseNumber() -> Int? {
        var value: Int?
        while let scalar = peek, ("0"..."9").contains(scalar) {
            position += 1
            // Large enough to be refused, small enough not to overflow.
            value = min((value ?? 0) * 10 + Int(scalar.value - 0x30), 1_000_000)
        }
        return value
    }

    /// One character, class, assertion or group; nil for flags that hold for the rest of the group.
    private mutating func parseAtom() throws(PatternError) -> PatternNode? {
        let scalar = try next()
        switch scalar {
        case ".": return .bytes(dotTakesNewline ? .all : ByteSet(0x0A...0x0A).inverted)
        case "^": return .assertion(.start)
        case "$": return .assertion(.end)
        case "[": return .bytes(try parseClass())
        case "(": return try parseGroup()
        case "\\": return try parseEscape()
        case "*", "+", "?":
            position -= 1
            throw error("nothing to repeat")
        default: return node(scalar)
        }
    }

    private func node(_ scalar: Unicode.Scalar) -> PatternNode { .bytes(folded(set(scalar, scalar))) }

    private func folded(_ set: ByteSet) -> ByteSet { ignoresCase ? set.caseFolded : set }

    /// The ASCII characters of a range.
    private func set(_ first: Unicode.Scalar, _ last: Unicode.Scalar) -> ByteSet {
        guard first.isASCII else { return .none }
        return ByteSet(UInt8(first.value)...UInt8(min(last.value, 0x7F)))
    }

    private mutating func parseGroup() throws(PatternError) -> PatternNode? {
        let (savedCase, savedDot) = (ignoresCase, dotTakesNewline)
        if take("?") {
            if take("P<") || peek == "<" {
                if peek == "<" { position += 1 }
                var length = 0
                while !take(">") {
                    let isName =
                        ByteSet.word.contains(UInt8(truncatingIfNeeded: peek?.value ?? 0)) && peek?.isASCII == true
                    guard isName else { throw error("invalid group name, or a lookbehind, which is not supported") }
                    position += 1
                    length += 1
                }
                guard length > 0 else { throw error("empty group name") }
            } else if try parseFlags() {
                return nil
            }
        }
        let node = try parseChoice()
        guard take(")") else { throw error("missing )") }
        (ignoresCase, dotTakesNewline) = (savedCase, savedDot)
        return node
    }

    /// Flags up to a colon, or up to a parenthesis: true then, as there is no group.
    private mutating func parseFlags() throws(PatternError) -> Bool {
        var value = true
        while true {
            switch try next() {
            case "i": ignoresCase = value
            case "s": dotTakesNewline = value
            case "m", "U": break
            case "-" where value: value = false
            case ":": return false
            case ")": return true
            default:
                position -= 1
                throw error("unknown flag, or a lookaround, which is not supported")
            }
        }
    }

    private mutating func parseEscape() throws(PatternError) -> PatternNode {
        switch peek {
        case "A":
            position += 1
            return .assertion(.start)
        case "z":
            position += 1
            return .assertion(.end)
        case "b":
            position += 1
            return .assertion(.wordBoundary)
        case "B":
            position += 1
            return .assertion(.notWordBoundary)
        default: break
        }
        if let set = parseClassEscape() { return .bytes(folded(set)) }
        return node(try parseCharacterEscape())
    }

    /// `\d`, `\s`, `\w` and their negations, after the backslash.
    private mutating func parseClassEscape() -> ByteSet? {
        let set: ByteSet
        switch peek {
        case "d": set = .digits
        case "D": set = ByteSet.digits.inverted
        case "s": set = .space
        case "S": set = ByteSet.space.inverted
        case "w": set = .word
        case "W": set = ByteSet.word.inverted
        default: return nil
        }
        position += 1
        return set
    }

    /// A single character, after the backslash.
    private mutating func parseCharacterEscape() throws(PatternError) -> Unicode.Scalar {
        let scalar = try next()
        switch scalar {
        case "a": return "\u{07}"
        case "f": return "\u{0C}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "v": return "\u{0B}"
        case "x": return try parseHexadecimal()
        case "0"..."7":
            // A digit other than 0 begins an octal number only when more follow; alone it would refer back to a group.
            var digits = String(scalar)
            while digits.count < 3, let digit = peek, ("0"..."7").contains(digit) {
                digits.unicodeScalars.append(digit)
                position += 1
            }
            guard scalar == "0" || digits.count > 1, let value = UInt32(digits, radix: 8),
                let code = Unicode.Scalar(value)
            else { throw error("references to groups are not supported") }
            return code
        default:
            let isPlain = !scalar.isASCII || !UInt8(scalar.value).isAlphanumeric
            guard isPlain else { throw error("unsupported escape \\\(scalar)") }
            return scalar
        }
    }

    private mutating func parseHexadecimal() throws(PatternError) -> Unicode.Scalar {
        var digits = ""
        if take("{") {
            while !take("}") {
                digits.unicodeScalars.append(try next())
                guard digits.count <= 8 else { throw error("invalid hexadecimal escape") }
            }
        } else {
            digits.unicodeScalars.append(try next())
            digits.unicodeScalars.append(try next())
        }
        guard digits.allSatisfy(\.isHexDigit), let value = UInt32(digits, radix: 16), let code = Unicode.Scalar(value)
        else {
            throw error("invalid hexadecimal escape")
        }
        return code
    }

    /// The rest of a class, after its opening bracket.
    private mutating func parseClass() throws(PatternError) -> ByteSet {
        let isNegated = take("^")
        var result = ByteSet.none
        var isFirst = true
        // A bracket that comes first is a member.
        while isFirst || peek != "]" {
            isFirst = false
            if take("[:") {
                result = result.union(try parseNamedClass())
                continue
            }
            let first = try next()
            if first == "\\", let set = parseClassEscape() {
                result = result.union(set)
                continue
            }
            let low = first == "\\" ? try parseCharacterEscape() : first
            var high = low
            if peek == "-", position + 1 < text.count, text[position + 1] != "]" {
                position += 1
                let last = try next()
                high = last == "\\" ? try parseCharacterEscape() : last
                guard low <= high else { throw error("a range of a class ends before it begins") }
            }
            result = result.union(set(low, high))
        }
        position += 1
        let members = folded(result)
        return isNegated ? members.inverted : members
    }

    /// The rest of `[:name:]` or `[:^name:]`.
    private mutating func parseNamedClass() throws(PatternError) -> ByteSet {
        let isNegated = take("^")
        let classes: [(String, ByteSet)] = [
            ("alnum", ByteSet(0x30...0x39, 0x41...0x5A, 0x61...0x7A)), ("alpha", ByteSet(0x41...0x5A, 0x61...0x7A)),
            ("ascii", ByteSet(0x00...0x7F)), ("blank", ByteSet(0x09...0x09, 0x20...0x20)),
            ("cntrl", ByteSet(0x00...0x1F, 0x7F...0x7F)), ("digit", .digits), ("graph", ByteSet(0x21...0x7E)),
            ("lower", ByteSet(0x61...0x7A)), ("print", ByteSet(0x20...0x7E)),
            ("punct", ByteSet(0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E)),
            ("space", ByteSet(0x09...0x0D, 0x20...0x20)), ("upper", ByteSet(0x41...0x5A)), ("word", .word),
            ("xdigit", ByteSet(0x30...0x39, 0x41...0x46, 0x61...0x66)),
        ]
        for (name, set) in classes where take(name + ":]") { return isNegated ? set.inverted : set }
        throw error("unknown named class")
    }
}

/// A regular expression as a tree.
indirect enum PatternNode: Sendable, Hashable {
    case empty
    case bytes(ByteSet)
    case assertion(PatternAssertion)
    case sequence([PatternNode])
    case choice([PatternNode])
    /// At least `minimum` times, at most `maximum` times, without end when that is nil.
    case repetition(PatternNode, minimum: Int, maximum: Int?)
}

/// A condition on a place between two bytes.
enum PatternAssertion: Sendable, Hashable {
    case start
    case end
    case wordBoundary
    case notWordBoundary
}

/// What is wrong with a regular expression.
struct PatternError: Error, CustomStringConvertible {
    let description: String
}
