/// What a store can say at once, without waiting for its backend.
public enum ImmediateAnswer<Value> {
    /// The store has it.
    case found(Value)
    /// The store is sure that it does not have it.
    case absent
    /// The store would have to wait to find out: ask the asynchronous form.
    case unknown

    /// The value, when there is one.
    public var value: Value? {
        if case .found(let value) = self { value } else { nil }
    }
}

extension ImmediateAnswer: Sendable where Value: Sendable {}
extension ImmediateAnswer: Equatable where Value: Equatable {}
