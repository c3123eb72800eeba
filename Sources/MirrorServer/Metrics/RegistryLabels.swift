import NIOConcurrencyHelpers

/// Decides which registries have a name of their own as the value of the label `registry`, so that clients cannot create
/// series without limit.
///
/// Configured registries and those of the local store always have their name, whatever names requests have brought before.
final class RegistryLabels: Sendable {
    /// Most registries that are known from the configuration or the store; further ones are `other`.
    static let knownLimit = 200
    /// Most registries that are known from requests only; further ones are `other`.
    static let requestedLimit = 50
    /// The label of the others.
    static let other = "other"

    private struct State {
        var known: Set<String> = []
        var requested: Set<String> = []
        var observers: [@Sendable (String) -> Void] = []
    }

    private let state = NIOLockedValueBox(State())

    /// Adds registries that are configured or have content in the store.
    func addKnown(_ registries: some Sequence<String>) {
        let (added, observers) = state.withLockedValue { state in
            var added: [String] = []
            for registry in registries where !state.known.contains(registry) && state.known.count < Self.knownLimit {
                state.known.insert(registry)
                if state.requested.remove(registry) == nil { added.append(registry) }
            }
            return (added, state.observers)
        }
        for observer in observers { for registry in added { observer(registry) } }
    }

    /// Calls `observer` with each label that exists, now and in future, so that its series can begin with 0.
    func onLabel(_ observer: @escaping @Sendable (String) -> Void) {
        let labels = state.withLockedValue { state in
            state.observers.append(observer)
            return state.known.union(state.requested)
        }
        for label in labels { observer(label) }
        observer(Self.other)
    }

    /// The labels that exist now.
    var labels: Set<String> {
        state.withLockedValue { $0.known.union($0.requested).union([Self.other]) }
    }

    /// The label of a registry that a request names; empty for none.
    func label(for registry: String?) -> String {
        let registry = registry ?? ""
        return state.withLockedValue { state in
            if state.known.contains(registry) || state.requested.contains(registry) { return registry }
            guard state.requested.count < Self.requestedLimit else { return Self.other }
            state.requested.insert(registry)
            return registry
        }
    }
}
