/// Why an option's value is no good: what is allowed instead. The parser adds the option's name and the value.
struct OptionError: Error, CustomStringConvertible, Equatable {
    var description: String

    /// - Parameter expected: What is allowed, as it would stand after "expected".
    init(_ expected: String) {
        description = "expected \(expected)"
    }
}
