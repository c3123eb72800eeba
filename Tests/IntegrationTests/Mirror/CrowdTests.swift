import Foundation
import Synchronization
import TestSupport
import Testing

extension MirrorProcessTests {
    /// One node in front of one provider, and many who ask it. `SPEGEL_TEST_FULL=1` makes the blob one of 100 MB.
    @Suite struct CrowdTests {
        /// Many clients want the same blob, which one peer has, from one node.
        @Test func manyClientsOfOneBlob() async throws {
            let (clients, mebibytes) = Project.isFullScale ? (200, 96) : (200, 2)
            let layout = try await TestImages.sized(mebibytes)
            let (digest, size) = try layout.largestLayer(of: TestImages.demo)
            let cluster = try await MirrorCluster.start(layout, providers: 1)
            _ = try await cluster.fetch(digest, size: size)
            let idle = cluster.residentMiB
            let peak = Mutex(idle)
            let watch = Task {
                while !Task.isCancelled {
                    let now = cluster.residentMiB
                    peak.withLock { $0 = max($0, now) }
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
            // Else it would keep the cluster alive when this fails.
            defer { watch.cancel() }
            let wrong = try await withThrowingTaskGroup(of: Bool.self) { group in
                for _ in 0..<clients { group.addTask { try await cluster.fetch(digest, size: size).isRight } }
                var wrong = 0
                for try await isRight in group where !isRight { wrong += 1 }
                return wrong
            }
            watch.cancel()
            let grown = peak.withLock { $0 } - idle
            print(
                "\(clients) clients, \(size) bytes: \(wrong) wrong; the node's memory: \(Int(idle)) MiB before, at most "
                    + "\(Int(grown)) MiB more")
            #expect(wrong == 0)
            #expect(grown <= 64)
        }

        /// What ten thousand mirrored requests needed is given back.
        @Test func memoryReturnsAfterManyRequests() async throws {
            let layout = try await TestImages.small()
            let cluster = try await MirrorCluster.start(layout, providers: 1)
            let contents = try layout.mirrored(TestImages.demo).filter { $0.bytes.count < 10_000 }
            let (targets, expected) = (contents.map(\.target), contents.map(\.bytes))
            #expect(targets.count > 3)
            func ask(_ requests: Int) async throws -> Int {
                try await withThrowingTaskGroup(of: Int.self) { group in
                    for number in 0..<16 {
                        group.addTask { [targets, expected] in
                            let connection = try RawConnection(cluster.address, cluster.port)
                            var wrong = 0
                            for index in 0..<(requests / 16) {
                                let pick = (index + number) % targets.count
                                let response = try await connection.request("GET", targets[pick])
                                if response.status != 200 || response.body != expected[pick] { wrong += 1 }
                            }
                            return wrong
                        }
                    }
                    return try await group.reduce(0, +)
                }
            }
            var wrong = try await ask(320)
            let idle = cluster.residentMiB
            wrong += try await ask(10_000)
            #expect(wrong == 0)
            // The last of it may be given back a moment later.
            let grown = try await eventually(
                "the memory being given back", detail: { "\(cluster.residentMiB) MiB, \(idle) MiB before" }
            ) { () -> Double? in
                let more = cluster.residentMiB - idle
                return more < 8 ? more : nil
            }
            print(
                "10000 mirrored requests: \(wrong) wrong, memory \(Int(idle)) MiB before, \(Int(grown)) MiB more after")
        }
    }
}
