/// Brings the accepted spellings of options, and the environment, into the one form that the parser reads.
///
/// Every option becomes `--name=VALUE`, once for each value of a list; options that are not on the command line are
/// taken from the environment. Anything unknown is passed on as it is, for the parser to complain about.
struct ArgumentNormalizer: Sendable {
    /// The options that are known.
    var catalogue: OptionCatalogue

    /// Arguments in the parser's form.
    struct Result: Equatable, Sendable {
        var arguments: [String]
        /// Options that the environment gave, with the variable's name, so that an error can tell where a value is from.
        var variables: [String: String]
    }

    /// The environment variable that stands for an option: `mirror-resolve-timeout` is `MIRROR_RESOLVE_TIMEOUT`.
    static func variable(for option: String) -> String {
        String(option.map { $0 == "-" ? "_" : $0 }).uppercased()
    }

    /// Normalizes `arguments` (without the program's name).
    func normalize(_ arguments: [String], environment: [String: String]) -> Result {
        var front: [String] = []
        var rest: [String] = []
        var command: String?
        var given: Set<String> = []

        var index = arguments.startIndex
        while index < arguments.endIndex {
            let argument = arguments[index]
            index += 1
            if argument == "--" {
                rest.append(argument)
                rest += arguments[index...]
                break
            }
            guard argument.hasPrefix("--") else {
                if command == nil, !argument.hasPrefix("-") {
                    command = argument
                } else {
                    rest.append(argument)
                }
                continue
            }
            let (name, attached) = Self.split(argument)
            let isGlobal = catalogue.global[name] != nil
            // The parser's own option; its value would be taken for the subcommand.
            if name == "generate-completion-script", attached == nil, index < arguments.endIndex {
                rest.append("\(argument)=\(arguments[index])")
                index += 1
                continue
            }
            guard let kind = catalogue.global[name] ?? command.flatMap({ catalogue.commands[$0]?[name] }) else {
                rest.append(argument)
                continue
            }
            given.insert(name)
            var values: [String] = []
            if let attached {
                values = [attached]
            }
            switch kind {
            case .value where attached == nil:
                guard index < arguments.endIndex, !Self.isOption(arguments[index]) else {
                    // Without a value: the parser says so.
                    rest.append(argument)
                    continue
                }
                values = [arguments[index]]
                index += 1
            case .boolean where attached == nil:
                values = ["true"]
            case .list:
                while index < arguments.endIndex, !Self.isOption(arguments[index]) {
                    values.append(arguments[index])
                    index += 1
                }
                values.removeAll(where: \.isEmpty)
            case .value, .boolean:
                break
            }
            let normalized = values.map { "--\(name)=\($0)" }
            if isGlobal {
                front += normalized
            } else {
                rest += normalized
            }
        }

        var variables: [String: String] = [:]
        func fromEnvironment(_ options: [String: OptionKind]) -> [String] {
            options.sorted { $0.key < $1.key }.flatMap { name, kind -> [String] in
                let variable = Self.variable(for: name)
                // An empty variable is how manifests leave something unset.
                guard !given.contains(name), !OptionCatalogue.withoutVariable.contains(name),
                    let value = environment[variable], !value.isEmpty
                else { return [] }
                variables[name] = variable
                let values = kind == .list ? Self.commaSeparated(value) : [value]
                return values.map { "--\(name)=\($0)" }
            }
        }
        front += fromEnvironment(catalogue.global)
        let own = command.flatMap { catalogue.commands[$0] }.map(fromEnvironment) ?? []
        return Result(arguments: front + (command.map { [$0] } ?? []) + own + rest, variables: variables)
    }

    /// `--name=value` in its two parts.
    private static func split(_ argument: String) -> (name: String, value: String?) {
        let body = argument.dropFirst(2)
        guard let equals = body.firstIndex(of: "=") else { return (String(body), nil) }
        return (String(body[..<equals]), String(body[body.index(after: equals)...]))
    }

    /// Whether an argument begins an option rather than being a value; a lone dash is a value.
    private static func isOption(_ argument: String) -> Bool {
        argument.hasPrefix("-") && argument != "-"
    }

    /// The fields of one line of comma-separated values, where double quotes protect commas (RFC 4180).
    ///
    /// Space around a field is dropped, and so are empty fields.
    static func commaSeparated(_ text: String) -> [String] {
        var fields: [String] = []
        var field = ""
        var quoted = false
        var characters = text[...]
        while let character = characters.popFirst() {
            switch (character, quoted) {
            case ("\"", true):
                if characters.first == "\"" {
                    characters.removeFirst()
                    field.append("\"")
                } else {
                    quoted = false
                }
            case ("\"", false) where field.allSatisfy(\.isWhitespace):
                field = ""
                quoted = true
            case (",", false):
                fields.append(field)
                field = ""
            default:
                field.append(character)
            }
        }
        fields.append(field)
        return fields.map { String($0.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()) }
            .filter { !$0.isEmpty }
    }
}
