import Foundation
import OCIDistribution

/// How fast content is hashed, in pieces as they come from a socket, beside openssl's own benchmark.
struct HashBenchmark {
    private let context: BenchmarkContext

    init(_ context: BenchmarkContext) { self.context = context }

    private enum Contender { case own, openssl(String) }

    func measure(_ report: inout SuiteReport) throws {
        report.notes.append("one thread; pieces of the given size; openssl speed -evp, which has the same code beneath")
        let openssl = try Tool.find("openssl", package: "openssl")
        for (algorithm, name) in [(DigestAlgorithm.sha256, "sha256"), (.sha512, "sha512")] {
            var section = Section(title: name, unit: "GiB/s", baseline: "openssl")
            for size in context.quick ? [64 << 10] : [16 << 10, 64 << 10, 256 << 10] {
                var samples: (own: [Double], openssl: [Double]) = ([], [])
                for round in 0..<context.rounds {
                    let turns: [Contender] = [.own, .openssl(openssl)]
                    for turn in round % 2 == 0 ? turns : turns.reversed() {
                        switch turn {
                        case .own: samples.own.append(own(algorithm, size))
                        case .openssl(let path): samples.openssl.append(try Self.openssl(path, name, size))
                        }
                    }
                }
                let group = "\(size >> 10) KiB"
                section.measurements.append(Measurement(name: "spegel", group: group, figure: Summary(samples.own)))
                section.measurements.append(
                    Measurement(name: "openssl", group: group, figure: Summary(samples.openssl)))
            }
            report.sections.append(section)
        }
    }

    private func own(_ algorithm: DigestAlgorithm, _ size: Int) -> Double {
        let piece = [UInt8](repeating: 0x5a, count: size)
        var hasher = DigestHasher(algorithm)
        let clock = ContinuousClock()
        let (start, limit) = (clock.now, Duration.seconds(context.seconds))
        var count = 0
        while clock.now - start < limit {
            piece.withUnsafeBytes { bytes in for _ in 0..<16 { hasher.update(bytes) } }
            count += 16
        }
        let seconds = (clock.now - start) / .seconds(1)
        withExtendedLifetime(hasher.finalize()) {}
        return Double(count * size) / 1_073_741_824 / seconds
    }

    private static func openssl(_ path: String, _ name: String, _ size: Int) throws -> Double {
        let output = try Tool.run(
            path, ["speed", "-elapsed", "-mr", "-evp", name, "-bytes", "\(size)", "-seconds", "1"], quiet: true)
        // +F:<number>:<name>:<bytes per second>
        guard let line = output.split(separator: "\n").last(where: { $0.hasPrefix("+F:") }),
            let rate = line.split(separator: ":").last.flatMap({ Double($0) })
        else { throw BenchmarkError("openssl said \(output)") }
        return rate / 1_073_741_824
    }
}
