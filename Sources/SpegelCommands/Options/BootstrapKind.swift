/// Where the first peers come from.
enum BootstrapKind: String, CaseIterable, Sendable {
    case dns
    case http
    case `static`

    /// The transform of the option.
    @Sendable static func parse(_ text: String) throws -> BootstrapKind {
        guard let kind = BootstrapKind(rawValue: text) else { throw OptionError("dns, http or static") }
        return kind
    }
}
