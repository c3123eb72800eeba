import NIOCore
import OrderedCollections

/// What an arbiter knows of content that no node holds yet: who fetches it from the upstream, and whom the others follow.
///
/// The claimants of one content form a tree. Its root, the leader, fetches from the upstream; every other node streams from
/// its parent while that one's own copy still grows. A claim is a lease: it lapses unless its node reports that it goes on. When a
/// leader fails, the first of its children that claims again leads, and the others follow that one.
///
/// A value type without I/O and without a clock. `Member` identifies a node. Everything is bounded by ``Limits``.
package struct ClaimTable<Member: Hashable & Sendable>: Sendable {
    /// The bounds.
    package struct Limits: Sendable {
        /// How long a claim lasts without a report.
        package var lease: TimeAmount = .seconds(2)
        /// How long reports renew it without growth: containerd shows the bytes of a fetch in steps of a megabyte, and the first
        /// ones of a slow registry come late. Longer than a follower waits.
        package var growth: TimeAmount = .seconds(12)
        /// How long a complete copy is named to claimants. From then on the provider record says it.
        package var completeLifetime: TimeAmount = .seconds(30)
        /// Contents at once; the one that was first claimed longest ago gives way.
        package var contents = 16_384
        /// Claimants of all contents together, some 300 bytes each; the oldest contents give way.
        package var total = 131_072
        /// How long a content without a leader is given to those who know one, after another arbiter has failed.
        package var settling: TimeAmount = .milliseconds(1500)
        /// Claimants of one content; those beyond go on alone.
        package var claimants = 4096
        /// Children of one node.
        package var fanOut = 4
        /// The most steps from a node to its leader.
        package var depth = 6
        /// Leaders of one content at once.
        package var leaders = 1
        /// Lapses in a row from which a node gets no lead for ``suspension``.
        package var lapses = 3
        package var suspension: TimeAmount = .minutes(1)
        /// How long a leader is watched before it can be found slow.
        package var slowLeaderTime: TimeAmount = .seconds(10)
        /// Nodes that have lapsed and are remembered; the one that lapsed first gives way.
        package var rememberedLapses = 4096

        package init() {}
    }

    /// What a claimant is told.
    package enum Answer: Hashable, Sendable {
        /// Fetch from the upstream.
        case lead
        /// Fetch from that node.
        case follow(Member)
        /// Go on alone.
        case unknown
        /// Ask again after half a second: the leader is about to say who it is.
        case wait
    }

    /// What a claimant does already when it comes from another arbiter.
    package enum Current: Hashable, Sendable {
        case leading
        case following(Member)
    }

    /// How a claimed content comes along at a node.
    package enum Progress: Hashable, Sendable {
        /// So many bytes have arrived.
        case arriving(bytes: UInt64)
        case complete
        case failed
    }

    private enum Role: Hashable, Sendable {
        case leader
        case follower(of: Member)
        /// Its parent has failed; it does not know yet.
        case orphan
        /// It has the whole content, and depends on nobody any more.
        case complete
    }

    private struct Claimant: Sendable {
        var role = Role.orphan
        var children = 0
        var bytes: UInt64
        var leaseUntil: NIODeadline
        /// When bytes came last, or it began to wait for them.
        var grewAt: NIODeadline
        /// Those that failed it; the last few.
        var failedParents: [Member] = []
        /// Where and when the watch on its rate began; for a leader.
        var watchedSince: NIODeadline
        var watchedFrom: UInt64

        var parent: Member? { if case .follower(let parent) = role { parent } else { nil } }
    }

    private struct Content: Sendable {
        var claimants: [Member: Claimant] = [:]
        /// Those who report a failure of a node that still holds a lease, by that node.
        var complaints: [Member: Set<Member>] = [:]
        /// When it was first claimed here; nil before.
        var begun: NIODeadline?
        var hasHadLeader = false
    }

    private struct Lapses: Sendable {
        var count = 0
        var suspendedUntil: NIODeadline?
    }

    /// Parents remembered as failed by one claimant.
    private static var rememberedParents: Int { 8 }
    /// Complaints of different children after which a parent with a lease is given up.
    private static var complaintLimit: Int { 2 }
    /// How much more children and steps there may be where the limits leave no parent: a claimant that has lost its parent brings
    /// those below it along, and going on alone would cost a copy.
    private static var strain: Int { 2 }

    private let limits: Limits
    /// In the order of their first claims.
    private var contents: OrderedDictionary<String, Content> = [:]
    private var total = 0
    private var lapses: OrderedDictionary<Member, Lapses> = [:]

    package init(limits: Limits = Limits()) { self.limits = limits }

    /// Contents that are being claimed.
    package var count: Int { contents.count }

    /// Claimants of a content, those that lapsed since the last claim included.
    package func claimantCount(of key: String) -> Int { contents[key]?.claimants.count ?? 0 }

    /// The claimants of a content, for tests.
    func tree(of key: String) -> [Member: (parent: Member?, children: Int, isLeader: Bool)] {
        (contents[key]?.claimants ?? [:]).mapValues {
            ($0.parent, $0.children, $0.role == .leader)
        }
    }

    // MARK: Claims

    /// A node whose store has begun to receive a content asks what to do.
    ///
    /// - Parameters:
    ///   - offset: bytes that it has.
    ///   - failedParent: the node that it followed until now, which failed.
    ///   - upstreamRate: bytes per second that it lately got from the upstream; 0 when it does not know.
    ///   - isSecondChoice: whether an arbiter that is nearer to the content did not answer, so that others may follow a leader who
    ///     is not known here yet.
    ///   - current: what it does already, after its arbiter has failed. A follower whose parent is not known here is told
    ///     ``Answer/unknown`` and asks again.
    package mutating func claim(
        _ key: String, by member: Member, offset: UInt64, failedParent: Member? = nil, upstreamRate: UInt64 = 0,
        isSecondChoice: Bool = false, current: Current? = nil, now: NIODeadline
    ) -> Answer {
        var content = take(key) ?? Content()
        let count = content.claimants.count
        defer { put(content, as: key, had: count) }
        if content.begun == nil { content.begun = now }
        expire(&content, now: now)
        if let failedParent { complain(about: failedParent, by: member, &content) }
        if let own = content.claimants[member] {
            let goesOn =
                switch own.role {
                case .leader, .complete: true
                case .follower(let parent): parent != failedParent && Self.steps(from: member, content) != nil
                case .orphan: false
                }
            if goesOn {
                content.claimants[member]?.bytes = max(own.bytes, offset)
                content.claimants[member]?.leaseUntil = now + limits.lease
                return own.parent.map { .follow($0) } ?? .lead
            }
        } else if content.claimants.count >= limits.claimants {
            return .unknown
        }
        Self.leaveParent(member, &content)
        var own =
            content.claimants[member]
            ?? Claimant(bytes: offset, leaseUntil: now, grewAt: now, watchedSince: now, watchedFrom: 0)
        if let failedParent {
            own.failedParents.append(failedParent)
            if own.failedParents.count > Self.rememberedParents { own.failedParents.removeFirst() }
        }
        own.bytes = max(own.bytes, offset)
        own.leaseUntil = now + limits.lease
        own.grewAt = now
        (own.watchedSince, own.watchedFrom) = (now, own.bytes)
        content.claimants[member] = own

        switch current {
        case .leading:
            content.claimants[member]?.role = .leader
            content.hasHadLeader = true
            return .lead
        case .following(let parent):
            // As it is, whatever the limits say; but for a circle, which a claimant that is wrong could make.
            guard parent != member, Self.steps(from: member, downTo: parent, content) == nil,
                content.claimants[parent] != nil
            else { return .unknown }
            content.claimants[member]?.role = .follower(of: parent)
            content.claimants[parent]?.children += 1
            return .follow(parent)
        case nil: break
        }
        let leaders = content.claimants.filter { $0.key != member && $0.value.role == .leader }
        let isWorthASecond =
            leaders.count == limits.leaders && leaders.allSatisfy { isSlow($0.value, for: upstreamRate, now: now) }
        var strained = limits
        (strained.fanOut, strained.depth) = (limits.fanOut * Self.strain, limits.depth * Self.strain)
        if !isWorthASecond,
            let parent = Self.parent(for: member, content, limits) ?? Self.parent(for: member, content, strained)
        {
            content.claimants[member]?.role = .follower(of: parent)
            content.claimants[parent]?.children += 1
            return .follow(parent)
        }
        // One that has followed somebody knows that there was a leader.
        if failedParent != nil || isSecondChoice, !content.hasHadLeader, let begun = content.begun,
            now - begun < limits.settling
        {
            return .wait
        }
        guard leaders.count < limits.leaders || isWorthASecond, !isSuspended(member, now: now) else {
            Self.remove(member, &content)
            return .unknown
        }
        content.claimants[member]?.role = .leader
        content.hasHadLeader = true
        return .lead
    }

    /// A node tells how a content comes along that it has claimed.
    ///
    /// - Returns: whether it is known as a claimant, and whose it is; one that is not says what it does (``Current``).
    @discardableResult
    package mutating func report(_ progress: Progress, of key: String, by member: Member, now: NIODeadline) -> Bool {
        guard var content = take(key) else { return false }
        let count = content.claimants.count
        defer { put(content, as: key, had: count) }
        guard var own = content.claimants[member] else { return false }
        switch progress {
        case .arriving(let bytes):
            if bytes > own.bytes { (own.bytes, own.grewAt) = (bytes, now) }
            guard now - own.grewAt < limits.growth else { return true }
            own.leaseUntil = now + limits.lease
            if now - own.watchedSince >= limits.slowLeaderTime * 2 {
                // Half of the window stays.
                let half = (own.bytes - min(own.bytes, own.watchedFrom)) / 2
                (own.watchedSince, own.watchedFrom) = (own.watchedSince + limits.slowLeaderTime, own.watchedFrom + half)
            }
            content.claimants[member] = own
        case .complete:
            Self.leaveParent(member, &content)
            content.claimants[member]?.role = .complete
            content.claimants[member]?.leaseUntil = now + limits.completeLifetime
            lapses.removeValue(forKey: member)
        case .failed:
            Self.remove(member, &content)
        }
        return content.claimants[member].map { $0.role != .orphan } ?? true
    }

    /// Forgets what has lapsed; call it now and then, so that contents nobody claims any more take no memory.
    package mutating func expire(now: NIODeadline) {
        for key in contents.keys {
            guard var content = take(key) else { continue }
            let count = content.claimants.count
            expire(&content, now: now)
            put(content, as: key, had: count)
        }
    }

    // MARK: Parts

    /// Takes a content out to be changed: of what stays in the table a change would copy all claimants.
    private mutating func take(_ key: String) -> Content? {
        guard let index = contents.index(forKey: key) else { return nil }
        defer { contents.values[index] = Content() }
        return contents.values[index]
    }

    /// Puts a content back that was taken out.
    ///
    /// - Parameter count: the claimants that it had.
    private mutating func put(_ content: Content, as key: String, had count: Int) {
        total += content.claimants.count - count
        contents[key] = content.claimants.isEmpty ? nil : content
        while contents.count > limits.contents || total > limits.total, let oldest = contents.values.first {
            total -= oldest.claimants.count
            contents.removeFirst()
        }
    }

    private mutating func expire(_ content: inout Content, now: NIODeadline) {
        for (member, claimant) in content.claimants where claimant.leaseUntil <= now {
            // Only who was to fetch has failed; a follower waited for others.
            if claimant.role == .leader { lapsed(member, now: now) }
            Self.remove(member, &content)
        }
    }

    private mutating func lapsed(_ member: Member, now: NIODeadline) {
        var entry = lapses.removeValue(forKey: member) ?? Lapses()
        entry.count += 1
        if entry.count >= limits.lapses { entry.suspendedUntil = now + limits.suspension }
        lapses[member] = entry
        if lapses.count > limits.rememberedLapses { lapses.removeFirst() }
    }

    private mutating func isSuspended(_ member: Member, now: NIODeadline) -> Bool {
        guard let until = lapses[member]?.suspendedUntil else { return false }
        if now < until { return true }
        lapses.removeValue(forKey: member)
        return false
    }

    /// A leader is slow when it has for a while made less than a quarter of what the claimant gets from the upstream.
    private func isSlow(_ leader: Claimant, for rate: UInt64, now: NIODeadline) -> Bool {
        let time = now - leader.watchedSince
        guard rate > 0, time >= limits.slowLeaderTime else { return false }
        let seconds = Double(time.nanoseconds) / 1e9
        return Double(leader.bytes - min(leader.bytes, leader.watchedFrom)) / seconds * 4 < Double(rate)
    }

    private mutating func complain(about parent: Member, by member: Member, _ content: inout Content) {
        // Only of its own parent, so that no node can bring down another's.
        guard content.claimants[member]?.parent == parent else { return }
        content.complaints[parent, default: []].insert(member)
        if content.complaints[parent]?.count ?? 0 >= Self.complaintLimit || content.claimants[parent]?.children == 1 {
            Self.remove(parent, &content)
        }
    }

    private static func leaveParent(_ member: Member, _ content: inout Content) {
        guard let parent = content.claimants[member]?.parent else { return }
        content.claimants[parent]?.children -= 1
        content.claimants[member]?.role = .orphan
    }

    private static func remove(_ member: Member, _ content: inout Content) {
        leaveParent(member, &content)
        if content.claimants.removeValue(forKey: member)?.children ?? 0 > 0 {
            for (other, claimant) in content.claimants where claimant.parent == member {
                content.claimants[other]?.role = .orphan
            }
        }
        content.complaints[member] = nil
    }

    /// The steps from a claimant up to a leader or a complete copy; nil when it hangs on neither.
    private static func steps(from member: Member, _ content: Content) -> Int? {
        var (current, steps) = (member, 0)
        while let claimant = content.claimants[current], steps <= content.claimants.count {
            if claimant.role == .complete || claimant.role == .leader { return steps }
            guard let parent = claimant.parent else { return nil }
            (current, steps) = (parent, steps + 1)
        }
        return nil
    }

    /// The steps from a claimant down to another one; nil when that one is not below it.
    private static func steps(from member: Member, downTo other: Member, _ content: Content) -> Int? {
        var (current, steps) = (other, 0)
        while current != member {
            guard let parent = content.claimants[current]?.parent, steps < content.claimants.count else { return nil }
            (current, steps) = (parent, steps + 1)
        }
        return steps
    }

    /// Whom a claimant follows: near to the root, then far in the content, with room, and not below itself.
    private static func parent(for member: Member, _ content: Content, _ limits: Limits) -> Member? {
        let failed = content.claimants[member]?.failedParents ?? []
        var height = 0
        if content.claimants[member]?.children ?? 0 > 0 {
            for other in content.claimants.keys {
                height = max(height, steps(from: member, downTo: other, content) ?? 0)
            }
        }
        var best: (member: Member, steps: Int, bytes: UInt64)?
        for (candidate, claimant) in content.claimants
        where candidate != member && claimant.children < limits.fanOut && !failed.contains(candidate) {
            guard let steps = Self.steps(from: candidate, content), steps + 1 + height <= limits.depth,
                Self.steps(from: member, downTo: candidate, content) == nil
            else { continue }
            if best.map({ steps < $0.steps || (steps == $0.steps && claimant.bytes > $0.bytes) }) ?? true {
                best = (candidate, steps, claimant.bytes)
            }
        }
        return best?.member
    }
}
