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

    /// What the place before the next byte is like, as far as assertions can tell.
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
    var start: State { settle([entry], context: .start) }

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
        return settle(reached, context: isWord && hasWordAssertions ? .afterWord : .afterOther)
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

    /// Goes through all instructions that can be reached without a byte, and tells whether a match is among them.
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

    /// Follows splits; what stays waits for the next byte.
    private func settle(_ reached: [Int], context: Context) -> State {
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
