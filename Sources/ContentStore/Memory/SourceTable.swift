/// Assigns numbers to the sources of content, so that content refers to them by small integers.
struct SourceTable: Sendable {
    /// How a source is known. One repository has one number for each kind.
    enum SourceKind: Sendable, Hashable {
        /// An image in the store reaches the content.
        case image
        /// The backend reports it.
        case backend
    }

    private struct Key: Sendable, Hashable {
        var source: ContentSource
        var kind: SourceKind
    }

    private struct Entry: Sendable {
        var key: Key
        /// The repository and the number as lists of one: most content has one source, and so all of it shares them.
        var list: [ContentSource]
        var numbers: [UInt32]
        var uses = 1

        init(_ key: Key, number: UInt32) {
            self.key = key
            list = [key.source]
            numbers = [number]
        }
    }

    private var entries: [Entry] = []
    private var free: [UInt32] = []
    private var numbers: [Key: UInt32] = [:]

    subscript(number: UInt32) -> ContentSource { entries[Int(number)].key.source }

    /// Only the one repository.
    func list(_ number: UInt32) -> [ContentSource] { entries[Int(number)].list }

    /// Only the one number.
    func numbers(_ number: UInt32) -> [UInt32] { entries[Int(number)].numbers }

    func kind(_ number: UInt32) -> SourceKind { entries[Int(number)].key.kind }

    func number(of source: ContentSource, kind: SourceKind) -> UInt32? {
        numbers[Key(source: source, kind: kind)]
    }

    /// Adds a reference to a source, which gets a number if it has none.
    mutating func retain(_ source: ContentSource, kind: SourceKind) -> UInt32 {
        let key = Key(source: source, kind: kind)
        if let number = numbers[key] {
            entries[Int(number)].uses += 1
            return number
        }
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            entries[Int(number)] = Entry(key, number: number)
        } else {
            number = UInt32(entries.count)
            entries.append(Entry(key, number: number))
        }
        numbers[key] = number
        return number
    }

    /// Removes a reference; after the last one the number is free again.
    mutating func release(_ number: UInt32) {
        entries[Int(number)].uses -= 1
        guard entries[Int(number)].uses == 0 else { return }
        numbers[entries[Int(number)].key] = nil
        free.append(number)
    }
}

/// Where a number is in an ascending list, or where it belongs.
enum SortedPosition {
    case present(Int)
    case absent(Int)
}

extension [UInt32] {
    /// Where a number is in an ascending array, or where it belongs.
    func position(of number: UInt32) -> SortedPosition {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle] == number { return .present(middle) }
            if self[middle] < number { low = middle + 1 } else { high = middle }
        }
        return .absent(low)
    }
}
