import Libp2p

extension SplitMix64 {
    /// A damaged copy: truncated, bits flipped, bytes inserted or removed, or replaced by noise.
    package mutating func mutate(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &self) {
            let index = bytes.isEmpty ? 0 : Int.random(in: 0..<bytes.count, using: &self)
            switch Int.random(in: 0..<6, using: &self) {
            case 0: bytes.removeLast(bytes.count - index)
            case 1 where !bytes.isEmpty: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &self)
            case 2: bytes.insert(UInt8.random(in: 0...255, using: &self), at: index)
            case 3 where !bytes.isEmpty: bytes.remove(at: index)
            case 4 where !bytes.isEmpty: bytes[index] = [0, 0x7f, 0x80, 0xff].randomElement(using: &self) ?? 0
            default: bytes.append(contentsOf: (0..<8).map { _ in UInt8.random(in: 0...255, using: &self) })
            }
        }
        return bytes
    }
}

/// The result of a call that changes what it is called on: the testing macros cannot make such calls themselves.
package func value<Value>(_ body: () throws -> Value) rethrows -> Value {
    try body()
}
