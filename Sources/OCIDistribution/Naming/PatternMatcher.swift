/// Searches for several regular expressions at once, in time proportional to the input: a table lookup a byte where the
/// deterministic automaton is small enough, else a step of the program.
struct PatternMatcher: Sendable {
    private let program: PatternProgram

    /// Classes of bytes that are equivalent in all patterns.
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

/// Regular expressions compiled to a nondeterministic automaton (Thompson's construction), which is searched for anywhere
/// in the input.
///
/// The work for a byte is bounded by the size of the program whatever the input is: nothing backtracks.
struct PatternProgram: Sendable {
    enum Instruction: Sendable {
        case match
        case bytes(ByteSet, next: Int)
        case assertion(PatternAssertion, next: Int)
        case split(Int, Int)
    }

    /// The context before the next byte that assertions depend on.
    enum Context: UInt8, Sendable {
        case start
        case afterWord
        case afterOther
    }

    /// The instructions that may be next, in order and without `split`, and the place they are at.
    struct State: Hashable, Sendable {
        var instructions: [Int]
        var context: Context
    }

    /// The largest program; what a byte costs at worst.
    static let maximumSize = 4000

    private(set) var instructions: [Instruction] = [.match]
    private(set) var entry = 0
    private let hasWordAssertions: Bool

    /// Nodes that may still be compiled; counted, as repetitions of nothing take time but no instructions.
    private var budget = 16 * maximumSize

    /// A program that matches where any of the patterns does.
    init(_ patterns: [PatternNode]) throws(PatternError) {
        hasWordAssertions = patterns.contains(where: \.hasWordAssertion)
        entry = try compile(.choice(patterns), next: 0)
    }

    private mutating func emit(_ instruction: Instruction) throws(PatternError) -> Int {
        guard instructions.count < Self.maximumSize else {
            throw PatternError(description: "the expression is too large")
        }
        instructions.append(instruction)
        return instructions.count - 1
    }

    /// Compiles from the end to the beginning: returns where `node`, followed by `next`, begins.
    private mutating func compile(_ node: PatternNode, next: Int) throws(PatternError) -> Int {
        budget -= 1
        guard budget > 0 else { throw PatternError(description: "the expression is too large") }
        switch node {
        case .empty: return next
        case .bytes(let set): return try emit(.bytes(set, next: next))
        case .assertion(let assertion): return try emit(.assertion(assertion, next: next))
        case .sequence(let parts):
            var next = next
            for part in parts.reversed() { next = try compile(part, next: next) }
            return next
        case .choice(let choices):
            guard let last = choices.last else { return try emit(.bytes(.none, next: next)) }
            var entry = try compile(last, next: next)
            for choice in choices.dropLast().reversed() {
                entry = try emit(.split(try compile(choice, next: next), entry))
            }
            return entry
        case .repetition(let part, let minimum, let maximum):
            var next = next
            if let maximum {
                let end = next
                for _ in minimum..<maximum { next = try emit(.split(try compile(part, next: next), end)) }
            } else {
                let loop = try emit(.split(next, next))
                instructions[loop] = .split(try compile(part, next: loop), next)
                next = loop
            }
            for _ in 0..<minimum { next = try compile(part, next: next) }
            return next
        }
    }

    /// The state before the first byte.
    var start: State { closure(of: [entry], context: .start) }

    /// The state after `byte`; nil when there is a match before it.
    func step(_ state: State, _ byte: UInt8) -> State? {
        let isWord = ByteSet.word.contains(byte)
        var reached: [Int] = []
        let matched = visit(state) { instruction in
            switch instruction {
            case .bytes(let set, let next) where set.contains(byte): reached.append(next)
            default: break
            }
        } holds: { assertion in
            PatternProgram.holds(assertion, state.context, isWord: isWord, isEnd: false)
        }
        if matched { return nil }
        // A match may begin anywhere.
        reached.append(entry)
        return closure(of: reached, context: isWord && hasWordAssertions ? .afterWord : .afterOther)
    }

    /// Whether there is a match when nothing follows.
    func matchesAtEnd(_ state: State) -> Bool {
        visit(state) { _ in
        } holds: { assertion in
            PatternProgram.holds(assertion, state.context, isWord: false, isEnd: true)
        }
    }

    private static func holds(_ assertion: PatternAssertion, _ context: Context, isWord: Bool, isEnd: Bool) -> Bool {
        switch assertion {
        case .start: context == .start
        case .end: isEnd
        case .wordBoundary: (context == .afterWord) != isWord
        case .notWordBoundary: (context == .afterWord) == isWord
        }
    }

    /// Visits all instructions reachable without a byte; returns whether a match is among them.
    private func visit(
        _ state: State, _ body: (Instruction) -> Void, holds: (PatternAssertion) -> Bool
    ) -> Bool {
        var seen = [Bool](repeating: false, count: instructions.count)
        var pending = state.instructions
        while let index = pending.popLast() {
            if seen[index] { continue }
            seen[index] = true
            switch instructions[index] {
            case .match: return true
            case .split(let first, let second):
                pending.append(second)
                pending.append(first)
            case .assertion(let assertion, let next): if holds(assertion) { pending.append(next) }
            case .bytes: body(instructions[index])
            }
        }
        return false
    }

    /// Follows splits; the instructions that remain consume the next byte.
    private func closure(of reached: [Int], context: Context) -> State {
        var seen = [Bool](repeating: false, count: instructions.count)
        var pending = reached
        var waiting: [Int] = []
        while let index = pending.popLast() {
            if seen[index] { continue }
            seen[index] = true
            switch instructions[index] {
            case .split(let first, let second):
                pending.append(second)
                pending.append(first)
            // Never holds again.
            case .assertion(.start, _) where context != .start: break
            default: waiting.append(index)
            }
        }
        return State(instructions: waiting.sorted(), context: context)
    }
}

extension PatternNode {
    fileprivate var hasWordAssertion: Bool {
        switch self {
        case .empty, .bytes: false
        case .assertion(let assertion): assertion == .wordBoundary || assertion == .notWordBoundary
        case .sequence(let parts), .choice(let parts): parts.contains(where: \.hasWordAssertion)
        case .repetition(let part, _, _): part.hasWordAssertion
        }
    }
}

/// A set of bytes.
struct ByteSet: Hashable, Sendable {
    private var words = SIMD4<UInt64>()

    static let none = ByteSet()
    static let all = ByteSet().inverted

    init() {}

    init(_ ranges: ClosedRange<UInt8>...) { for range in ranges { insert(range) } }

    func contains(_ byte: UInt8) -> Bool { words[Int(byte >> 6)] >> UInt64(byte & 63) & 1 == 1 }

    mutating func insert(_ range: ClosedRange<UInt8>) {
        for byte in range { words[Int(byte >> 6)] |= 1 << UInt64(byte & 63) }
    }

    func union(_ other: ByteSet) -> ByteSet {
        var result = self
        result.words |= other.words
        return result
    }

    var inverted: ByteSet {
        var result = self
        result.words = ~words
        return result
    }

    /// The set with the other case of each ASCII letter in it.
    var caseFolded: ByteSet {
        var result = self
        for upper in UInt8(0x41)...0x5A where contains(upper) || contains(upper | 0x20) {
            result.insert(upper...upper)
            result.insert((upper | 0x20)...(upper | 0x20))
        }
        return result
    }

    static let digits = ByteSet(0x30...0x39)
    static let word = ByteSet(0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A)
    static let space = ByteSet(0x09...0x0A, 0x0C...0x0D, 0x20...0x20)
}
