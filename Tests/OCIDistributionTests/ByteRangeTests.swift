import OCIDistribution
import Testing

@Suite struct ByteRangeTests {
    @Test(
        arguments: [
            ("bytes=0-0", .bounded(first: 0, last: 0)), ("bytes=5-9", .bounded(first: 5, last: 9)),
            ("bytes=7-", .from(7)),
            ("bytes=-3", .suffix(3)), ("bytes=-0", .suffix(0)), ("BYTES=1-2", .bounded(first: 1, last: 2)),
            ("  bytes = 1-2\t", .bounded(first: 1, last: 2)), ("bytes=007-0010", .bounded(first: 7, last: 10)),
            ("bytes=0-99999999999999999999999999", .bounded(first: 0, last: .max)),
            ("bytes=99999999999999999999999999-", .from(.max)), ("bytes=-99999999999999999999", .suffix(.max)),
            ("bytes=9223372036854775807-9223372036854775808", .bounded(first: .max, last: .max)),
        ] as [(String, ByteRange)])
    func parses(header: String, range: ByteRange) throws {
        #expect(try ByteRange.parse(header) == range)
        #expect(try ByteRange.parse(range.description) == range)
    }

    @Test(arguments: ["items=0-5", "seconds=1-2", "byte=0-1", "bytess=0-1", "none=", "x=bytes=0-1"])
    func ignoresOtherUnits(header: String) throws {
        #expect(try ByteRange.parse(header) == nil)
    }

    @Test(arguments: [
        "", "bytes", "bytes=", "bytes=,", "=0-1", "bytes=-", "bytes=--1", "bytes=1", "bytes=a-b", "bytes=0x1-2",
        "bytes=2-1",
        "bytes=1-2-3",
        "bytes=+1-2", "bytes=1 -2", "bytes= ", "bytes=1.0-2", "bytes=٣-٤", "bytes=1-2\u{0}", "bytes 0-1", "bytes:0-1",
    ])
    func rejectsMalformed(header: String) {
        #expect { try ByteRange.parse(header) } throws: { error in
            guard case ByteRangeError.malformed = error else { return false }
            return (error as? ByteRangeError)?.distributionError.httpStatus == 400
        }
    }

    @Test(arguments: ["bytes=0-1,2-3", "bytes=0-1, 5-", "bytes=,0-1,,2-3", "bytes=-1,-2,-3"])
    func rejectsSeveral(header: String) {
        #expect { try ByteRange.parse(header) } throws: { error in
            guard case ByteRangeError.multiple = error else { return false }
            return (error as? ByteRangeError)?.distributionError.httpStatus == 400
        }
    }

    /// Empty elements of a list do not count (RFC 9110 §5.6.1.2).
    @Test(arguments: ["bytes=0-9,", "bytes=,0-9", "bytes= , 0-9 ,,"])
    func oneRangeAmongEmptyElements(header: String) throws {
        #expect(try ByteRange.parse(header) == .bounded(first: 0, last: 9))
    }

    /// Against a list of the bytes that each form selects.
    @Test func resolvesAsDefined() {
        for size in 0..<6 as Range<Int64> {
            for first in 0..<8 as Range<Int64> {
                let from = (0..<size).filter { $0 >= first }
                #expect((try? ByteRange.from(first).resolve(size: size)).map(Array.init) == (from.isEmpty ? nil : from))
                let suffix = (0..<size).filter { $0 >= size - first }
                #expect(
                    (try? ByteRange.suffix(first).resolve(size: size)).map(Array.init)
                        == (suffix.isEmpty ? nil : suffix))
                for last in first..<9 {
                    let bounded = (0..<size).filter { $0 >= first && $0 <= last }
                    #expect(
                        (try? ByteRange.bounded(first: first, last: last).resolve(size: size)).map(Array.init)
                            == (bounded.isEmpty ? nil : bounded))
                }
            }
        }
    }

    @Test func doesNotOverflow() throws {
        #expect(try ByteRange.bounded(first: 0, last: .max).resolve(size: .max) == 0..<Int64.max)
        #expect(try ByteRange.bounded(first: .max - 1, last: .max).resolve(size: .max) == (.max - 1)..<Int64.max)
        #expect(try ByteRange.suffix(.max).resolve(size: 3) == 0..<3)
        #expect(throws: ByteRangeError.unsatisfiable(size: .max)) { try ByteRange.from(.max).resolve(size: .max) }
        // Values that no header can give.
        for range in [
            ByteRange.from(-1), .suffix(-1), .bounded(first: -5, last: 2), .bounded(first: 2, last: 1), .from(.min),
        ] {
            #expect(throws: ByteRangeError.unsatisfiable(size: 10)) { try range.resolve(size: 10) }
        }
        #expect(throws: ByteRangeError.self) { try ByteRange.from(0).resolve(size: -1) }
    }

    @Test func reportsUnsatisfiable() {
        let error = ByteRangeError.unsatisfiable(size: 10).distributionError
        #expect(error.httpStatus == 416 && error.code == .rangeInvalid)
    }

    @Test(arguments: 0..<3 as Range<UInt64>) func mutatedHeadersStayConsistent(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var valid = 0
        for _ in 0..<4000 {
            let start = generator.pick(["bytes=0-499", "bytes=9500-", "bytes=-500", "items=1-2"])
            let bytes = generator.mutate(Array(start.utf8), alphabet: Array("0123456789-=, \tbytesB".utf8))
            guard let range = bytes.withUnsafeBufferPointer({ try? ByteRange.parse(utf8: $0) }) else { continue }
            valid += 1
            #expect(try ByteRange.parse(range.description) == range, "seed \(seed)")
            let size = Int64(generator.below(20_000))
            if let resolved = try? range.resolve(size: size) {
                #expect(!resolved.isEmpty && resolved.lowerBound >= 0 && resolved.upperBound <= size)
                let header = ContentRange.satisfied(resolved, size: size)
                #expect(try ContentRange(parsing: header.description) == header)
            }
        }
        #expect(valid > 100)
    }
}

@Suite struct ContentRangeTests {
    @Test(
        arguments: [
            ("bytes 0-0/1", .satisfied(0..<1, size: 1)), ("bytes 5-9/100", .satisfied(5..<10, size: 100)),
            ("bytes 5-9/*", .satisfied(5..<10, size: nil)), ("bytes */100", .unsatisfied(size: 100)),
            ("bytes */0", .unsatisfied(size: 0)),
            ("bytes 0-9223372036854775805/9223372036854775806", .satisfied(0..<(.max - 1), size: .max - 1)),
        ] as [(String, ContentRange)])
    func roundTrips(header: String, range: ContentRange) throws {
        #expect(try ContentRange(parsing: header) == range)
        #expect(range.description == header)
        #expect(try ContentRange(parsing: " \(header)\t") == range)
        #expect(try ContentRange(parsing: header.replacing("bytes", with: "Bytes")) == range)
    }

    @Test(arguments: [
        "", "bytes", "bytes ", "bytes 0-1", "bytes 0-1/", "bytes 1-0/5", "bytes 0-5/5", "bytes */*", "bytes -1/5",
        "bytes 0-/5",
        "items 0-1/5", "bytes=0-1/5", "bytes 0-1/5/6", "bytes a-b/c", "bytes 0-9223372036854775807/*", "0-1/5",
        "bytes 0-1/99999999999999999999", "bytes 0--1/5", "bytes 0 - 1/5",
    ])
    func rejects(header: String) {
        #expect(throws: ByteRangeError.self) { try ContentRange(parsing: header) }
    }

    @Test(arguments: 0..<3 as Range<UInt64>) func mutatedHeadersStayConsistent(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<3000 {
            let start = generator.pick(["bytes 0-499/1234", "bytes 42-1233/*", "bytes */1234"])
            let bytes = generator.mutate(Array(start.utf8), alphabet: Array("0123456789-/* bytes".utf8))
            guard let range = try? ContentRange(parsing: String(decoding: bytes, as: UTF8.self)) else { continue }
            #expect(try ContentRange(parsing: range.description) == range, "seed \(seed)")
        }
    }
}
