/// A small seeded generator, so that every run with the same seed takes the same decisions.
///
/// It decides jitter and shuffles, never secrets.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) {
        state = seed
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// A number of 0 up to, not including, 1.
    package mutating func fraction() -> Double {
        Double(next() >> 11) / 9_007_199_254_740_992.0
    }

    /// `amount` times a random factor of 1 − `spread` to 1 + `spread`.
    package mutating func jittered(_ amount: Int64, spread: Double) -> Int64 {
        Int64(Double(amount) * (1 + spread * (2 * fraction() - 1)))
    }
}
