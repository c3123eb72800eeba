import Foundation
import Synchronization
import TestSupport
import Testing

extension MirrorProcessTests {
    /// All providers are replaced one after the other while clients ask. `SPEGEL_TEST_FULL=1` makes it ten providers, each
    /// three times.
    @Suite struct RollingRestartTests {
        /// The requests of all clients.
        private final class Load: Sendable {
            let isOver = Mutex(false)
            let wrong = Mutex<[String]>([])
        }

        @Test func contentOfARunningNodeIsAlwaysFound() async throws {
            let (providers, turns) = Project.isFullScale ? (10, 3) : (4, 1)
            let layout = try await TestImages.small()
            let cluster = try await MirrorCluster.start(layout, providers: providers)
            var contents = try layout.mirrored(TestImages.demo)
            contents.append(("/v2/library/demo/manifests/1.0?ns=docker.io", contents[0].bytes))
            let wanted = contents
            let load = Load()

            let served = try await withThrowingTaskGroup(of: Int.self) { group in
                for client in 0..<4 {
                    group.addTask {
                        let connection = try RawConnection(cluster.address, cluster.port)
                        var count = 0
                        while !load.isOver.withLock({ $0 }) {
                            let (target, bytes) = wanted[(count + client) % wanted.count]
                            let response = try await connection.request("GET", target)
                            if response.status != 200 || response.body != bytes {
                                load.wrong.withLock {
                                    $0.append("\(response.status) \(response.body.count) B: \(target)")
                                }
                            }
                            count += 1
                        }
                        return count
                    }
                }
                do {
                    for number in (0..<turns).flatMap({ _ in 0..<providers }) {
                        try await cluster.stop(number)
                        try await cluster.startProvider(number)
                    }
                } catch {
                    load.isOver.withLock { $0 = true }
                    throw error
                }
                load.isOver.withLock { $0 = true }
                return try await group.reduce(0, +)
            }
            let failed = load.wrong.withLock { $0 }
            print("\(providers * turns) restarts, \(served) requests, wrong: \(failed.count)")
            #expect(failed.isEmpty, "\(failed.prefix(5))")
            #expect(served > 100)
        }
    }
}
