/// Counts what each source has of something, for limits per source. No entry is kept of a source that has nothing, so there are
/// as many entries at most as there are things.
package struct SourceCounts<Source: Hashable & Sendable>: Sendable {
    private var counts: [Source: Int] = [:]

    package init() {}

    /// What a source has; 0 for nil, which is a source without a limit.
    package subscript(source: Source?) -> Int { source.flatMap { counts[$0] } ?? 0 }

    /// Counts one more of a source; nothing for nil.
    ///
    /// - Returns: what it has then.
    @discardableResult
    package mutating func add(_ source: Source?) -> Int {
        guard let source else { return 0 }
        counts[source, default: 0] += 1
        return counts[source, default: 0]
    }

    /// Counts one less of a source that has any; nothing for nil.
    package mutating func remove(_ source: Source?) {
        guard let source, let count = counts[source] else { return }
        counts[source] = count == 1 ? nil : count - 1
    }
}
