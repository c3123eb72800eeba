@testable import OCIDistribution

/// Regular expressions of filters: the first line is the pattern, the rest the text. Table and program must agree.
func fuzzFilter(_ input: UnsafeBufferPointer<UInt8>) {
    let end = input.firstIndex(of: 0x0A) ?? input.count
    let pattern = String(decoding: input[..<end], as: UTF8.self)
    let text = String(decoding: input[end...].dropFirst(), as: UTF8.self)
    guard let node = try? PatternParser.parse(pattern) else { return }
    guard let table = try? PatternMatcher([node], maximumStates: 32) else { return }
    guard let program = try? PatternMatcher([node], maximumStates: 0) else { return }
    let answers = (table.matches([text[...].utf8]), program.matches([text[...].utf8]))
    require(answers.0 == answers.1, "the table and the program disagree")
}
