/// SplitMix64: the same numbers for the same seed, everywhere.
package struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// Requests, good and bad, that random ones are made from.
package enum RequestSamples {
    package static let texts = [
        "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /livez HTTP/1.0\r\n\r\n",
        "GET /v2/library/demo/manifests/1.0?ns=docker.io HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
        "GET http://h:1/v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /v2/a/b/blobs/sha256:0123 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        "\r\n\r\nGET /readyz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    ]

    /// A few samples in a row with some bytes changed, removed, doubled or inserted.
    package static func random(using generator: inout SeededGenerator) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            bytes += texts[Int.random(in: 0..<texts.count, using: &generator)].utf8
        }
        for _ in 0..<Int.random(in: 0...4, using: &generator) where !bytes.isEmpty {
            let position = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: bytes[position] = UInt8.random(in: 0...255, using: &generator)
            case 1: bytes.remove(at: position)
            case 2: bytes.insert(bytes[position], at: position)
            default:
                let interesting: [UInt8] = [0, 0x0a, 0x0d, 0x20, 0x09, 0x3a, 0x2c, 0x7f, 0xff, 0x25, 0x3f]
                bytes.insert(interesting[Int.random(in: 0..<interesting.count, using: &generator)], at: position)
            }
        }
        return bytes
    }
}
