/// Searches for several regular expressions at once, in time proportional to the input: a table lookup a byte where the
/// deterministic automaton is small enough, else a step of the program.
struct PatternMatcher: Sendable {
    private let program: PatternProgram

    /// Groups of bytes that no pattern tells apart.
    private var classes = [UInt8](repeating: 0, count: 256)
    private var classCount = 0

    /// For each state and class the next state, ``matched`` or ``unknown``.
    private var table: [UInt16] = []
    private var acceptsAtEnd: [Bool] = []

    private static let matched = UInt16.max
    private static let unknown = UInt16.max - 1

    /// The largest table: 256 KiB for 128 classes, far less usually.
    static let maximumStates = 1024

    /// Compiles patterns in RE2 syntax; there is a match where one of them matches.
    init(_ patterns: [PatternNode], maximumStates: Int = maximumStates) throws(PatternError) {
        program = try PatternProgram(patterns)
        findClasses()
        build(maximumStates: maximumStates)
    }

    private mutating func findClasses() {
        var sets: Set<ByteSet> = [.word]
        for case .bytes(let set, _) in program.instructions { sets.insert(set) }
        let ordered = Array(sets)
        var known: [[Bool]: UInt8] = [:]
        for byte in UInt8.min...UInt8.max {
            let signature = ordered.map { $0.contains(byte) }
            let index = known[signature] ?? UInt8(known.count)
            known[signature] = index
            classes[Int(byte)] = index
        }
        classCount = known.count
    }

    /// Explores the states that can be reached, up to a number; the table has ``unknown`` where others begin.
    private mutating func build(maximumStates: Int) {
        var samples = [UInt8](repeating: 0, count: classCount)
        for byte in UInt8.min...UInt8.max { samples[Int(classes[Int(byte)])] = byte }
        guard maximumStates > 0 else { return }
        var states = [program.start]
        var numbers = [states[0]: UInt16(0)]
        var index = 0
        while index < states.count {
            for sample in samples {
                guard let next = program.step(states[index], sample) else {
                    table.append(Self.matched)
                    continue
                }
                if let number = numbers[next] {
                    table.append(number)
                } else if states.count < maximumStates {
                    numbers[next] = UInt16(states.count)
                    table.append(UInt16(states.count))
                    states.append(next)
                } else {
                    table.append(Self.unknown)
                }
            }
            acceptsAtEnd.append(program.matchesAtEnd(states[index]))
            index += 1
        }
    }

    /// Whether one of the patterns matches somewhere in the parts, which are read as one text.
    func matches(_ parts: [Substring.UTF8View]) -> Bool {
        guard !table.isEmpty else { return simulate(parts) }
        var state = 0
        for part in parts {
            for byte in part {
                let next = table[state &* classCount &+ Int(classes[Int(byte)])]
                if next == Self.matched { return true }
                if next == Self.unknown { return simulate(parts) }
                state = Int(next)
            }
        }
        return acceptsAtEnd[state]
    }

    private func simulate(_ parts: [Substring.UTF8View]) -> Bool {
        var state = program.start
        for part in parts {
            for byte in part {
                guard let next = program.step(state, byte) else { return true }
                state = next
            }
        }
        return program.matchesAtEnd(state)
    }
}
