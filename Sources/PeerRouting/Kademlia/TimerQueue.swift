import HeapModule
import NIOCore

/// Things to be done at given times, earliest first. What is no longer wanted is found out when its time comes.
struct TimerQueue<Item: Sendable>: Sendable {
    private struct Element: Comparable, Sendable {
        let deadline: NIODeadline
        let sequence: UInt64
        let item: Item

        static func < (left: Element, right: Element) -> Bool {
            (left.deadline, left.sequence) < (right.deadline, right.sequence)
        }
        static func == (left: Element, right: Element) -> Bool { left.sequence == right.sequence }
    }

    private var heap = Heap<Element>()
    private var sequence: UInt64 = 0

    var count: Int { heap.count }
    var nextDeadline: NIODeadline? { heap.min?.deadline }

    mutating func schedule(_ item: Item, at deadline: NIODeadline) {
        sequence += 1
        heap.insert(Element(deadline: deadline, sequence: sequence, item: item))
    }

    /// The next item whose time has come.
    mutating func popDue(now: NIODeadline) -> Item? {
        guard let first = heap.min, first.deadline <= now else { return nil }
        return heap.removeMin().item
    }
}
