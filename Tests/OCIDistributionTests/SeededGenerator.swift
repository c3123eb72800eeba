/// SplitMix64: the same numbers for the same seed, so that a failing property can be run again.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &self) }

    mutating func pick<Element>(_ choices: [Element]) -> Element { choices[below(choices.count)] }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) } }

    /// Up to `length` characters of an alphabet.
    mutating func text(_ alphabet: String, upTo length: Int) -> String {
        let characters = Array(alphabet)
        return String((0..<below(length + 1)).map { _ in characters[below(characters.count)] })
    }

    /// One to four edits: bytes changed, removed, inserted, repeated.
    mutating func mutate(_ input: [UInt8], alphabet: [UInt8]) -> [UInt8] {
        var bytes = input
        for _ in 0...below(4) {
            let place = below(bytes.count + 1)
            switch below(5) {
            case 0 where place < bytes.count: bytes[place] = pick(alphabet)
            case 1 where place < bytes.count: bytes.remove(at: place)
            case 2: bytes.insert(pick(alphabet), at: place)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + below(8)))
            default: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + below(8))], at: place)
            }
        }
        return bytes
    }
}
