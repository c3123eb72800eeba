import NIOCore

/// Nodes of a ``SimulatedNetwork`` that are replaced one after the other, while the others look for one another's keys.
///
/// A lookup counts when its asker, and the node that holds the key, were there from five seconds after they joined
/// until the lookup's end: nobody can be told the outcome of a search whose asker died, and nothing is promised about
/// keys that no living node holds. Everybody else must be found, and as the first provider named.
package struct SimulatedChurn {
    /// One lookup of a key.
    package struct Lookup: Sendable {
        /// The node that holds the key.
        package let holder: Int
        /// The node that looked.
        package let asker: Int
        /// The index in ``SimulatedNetwork/searches``.
        package let search: Int
    }

    /// How long a newcomer has to find its place and to announce its keys.
    private static let grace: TimeAmount = .seconds(5)

    private let network: SimulatedNetwork
    private let keysPerNode: Int
    private var random: SplitMix64
    private var newcomers: [(number: Int, since: TimeAmount)] = []
    /// The lookups that count.
    package private(set) var lookups: [Lookup] = []
    /// Nodes replaced.
    package private(set) var replaced = 0
    /// Lookups that do not count: the asker or the holder died before their end.
    package private(set) var orphaned = 0

    /// Prepares the churn of a network whose nodes advertise the keys of ``keys(of:count:)``.
    package init(network: SimulatedNetwork, keysPerNode: Int, seed: UInt64) {
        self.network = network
        self.keysPerNode = keysPerNode
        random = SplitMix64(seed: seed)
    }

    /// The keys that node `number` holds.
    package static func keys(of number: Int, count: Int) -> [String] {
        (0..<count).map { "\(number)/\($0)" }
    }

    /// Replaces `count` nodes at even distances in `duration`, with `lookups` lookups between any two.
    package mutating func replace(_ count: Int, in duration: TimeAmount, lookups: Int) {
        let pause = TimeAmount.nanoseconds(duration.nanoseconds / Int64(count * lookups))
        for _ in 0..<count {
            replaceOne()
            for _ in 0..<lookups {
                network.run(for: pause)
                lookUp()
            }
        }
        // Longer than any search may take.
        network.run(for: .minutes(1))
    }

    /// The lookups that did not name the holder first.
    package var lost: [Lookup] { lookups.filter { network.searches[$0.search].found.first != $0.holder } }

    private mutating func replaceOne() {
        let victim = network.living.randomElement(using: &random) ?? 0
        let interrupted = lookups.suffix(1000).filter {
            ($0.asker == victim || $0.holder == victim) && network.searches[$0.search].endedAt == nil
        }
        lookups.removeAll { lookup in interrupted.contains { $0.search == lookup.search } }
        orphaned += interrupted.count
        network.kill(victim)
        let known = (0..<3).compactMap { _ in network.living.randomElement(using: &random) }
        let newcomer = network.addNode(bootstrap: known)
        network.advertise(Self.keys(of: newcomer, count: keysPerNode), by: newcomer)
        newcomers.append((newcomer, network.elapsed))
        replaced += 1
    }

    private mutating func lookUp() {
        newcomers.removeAll { network.elapsed - $0.since > Self.grace }
        let settled = network.living.filter { number in !newcomers.contains { $0.number == number } }
        guard let holder = settled.randomElement(using: &random),
            let asker = settled.filter({ $0 != holder }).randomElement(using: &random),
            let key = Self.keys(of: holder, count: keysPerNode).randomElement(using: &random)
        else { return }
        lookups.append(Lookup(holder: holder, asker: asker, search: network.search(key, by: asker)))
    }
}
