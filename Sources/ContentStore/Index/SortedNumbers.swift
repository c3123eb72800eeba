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
