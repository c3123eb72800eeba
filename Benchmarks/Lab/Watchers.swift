import Foundation
import NIOConcurrencyHelpers

/// The debug page open in browsers, and a Prometheus: what the page's script asks for every 2 s, and a scrape each second.
final class Watchers {
    private let isStopped = NIOLockedValueBox(false)
    private let answers = NIOLockedValueBox(0)
    private let threads: [Thread]

    /// - Parameters:
    ///   - host: where the daemon serves its metrics, on port 9090.
    ///   - browsers: pages that are open.
    init(host: String, browsers: Int) throws {
        let (isStopped, answers) = (isStopped, answers)
        threads = try (0...browsers).map { number in
            let isBrowser = number > 0
            let client = try ClientSocket(host: host, port: 9090)
            let thread = Thread {
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
                defer { buffer.deallocate() }
                // Not all at the same moment.
                usleep(UInt32(number) * 150_000)
                while !isStopped.withLockedValue({ $0 }) {
                    guard (try? client.get(isBrowser ? "/debug/web/" : "/metrics", buffer: buffer)) != nil else {
                        return
                    }
                    answers.withLockedValue { $0 += 1 }
                    usleep(isBrowser ? 2_000_000 : 1_000_000)
                }
            }
            thread.start()
            return thread
        }
    }

    /// Ends them.
    ///
    /// - Returns: how many answers they got.
    func stop() -> Int {
        isStopped.withLockedValue { $0 = true }
        for thread in threads { while !thread.isFinished { usleep(10_000) } }
        return answers.withLockedValue { $0 }
    }
}
