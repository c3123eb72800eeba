import Foundation
import OCIDistribution
import PeerRouting
import Synchronization
import TestSupport
import Testing

extension MirrorProcessTests {
    /// Providers that are killed while they serve. `SPEGEL_TEST_FULL=1` makes it a hundred times, with 500 MB;
    /// `SPEGEL_TEST_ROUNDS` sets how often.
    @Suite struct KilledProviderTests {
        private static let seed: UInt64 = 5

        @Test func aSecondProviderCarriesOn() async throws {
            let (rounds, mebibytes) = (MirrorCluster.rounds(10), Project.isFullScale ? 477 : 64)
            let layout = try await TestImages.sized(mebibytes)
            let (digest, size) = try layout.largestLayer(of: TestImages.demo)
            let cluster = try await MirrorCluster.start(layout, providers: 2)
            var random = SplitMix64(seed: Self.seed)
            var wrong: [String] = []
            var kills = 0
            for round in 0..<rounds {
                for number in 0..<2 { try await cluster.startProvider(number) }
                let moment = Int.random(in: 1..<size, using: &random)
                let killed = Mutex(false)
                let result = try await cluster.fetch(digest, size: size) { received in
                    guard received >= moment, killed.withLock({ !$0 }) else { return }
                    let number = try await cluster.killProvider(serving: digest)
                    killed.withLock { $0 = number != nil }
                }
                if killed.withLock({ $0 }) { kills += 1 }
                if !result.isRight { wrong.append("round \(round), kill at \(moment): \(result)") }
            }
            let resumes = try await cluster.resumes
            print("\(rounds) × \(size) bytes, \(kills) kills, \(resumes) resumes, wrong: \(wrong)")
            #expect(wrong.isEmpty)
            #expect(kills == rounds)
            // The rest was sometimes in the kernel's buffers already when the provider was killed.
            #expect(resumes > 0)
        }

        /// containerd asks the mirror, whose only provider is killed at some moment, and has an upstream behind it.
        @Test func containerdFallsBackToTheUpstream() async throws {
            let (rounds, mebibytes) = (MirrorCluster.rounds(5), 64)
            let layout = try await TestImages.sized(mebibytes)
            let digests = try layout.digests(of: TestImages.demo, architecture: "amd64")
            let upstream = try await TestUpstream.start()
            try await upstream.push(layout, TestImages.demo)
            let cluster = try await MirrorCluster.start(layout, providers: 1)
            let containerd = try await TestContainerd.start()
            let hosts = try containerd.hosts(
                registry: "docker.io", mirror: "\(cluster.address):\(cluster.port)",
                upstream: "\(upstream.address):\(upstream.port)")
            var random = SplitMix64(seed: Self.seed)
            var failures: [String] = []
            for round in 0..<rounds {
                try await cluster.startProvider(0)
                let delay = Duration.milliseconds(Int.random(in: 0..<1500, using: &random))
                let pull = Task {
                    try await containerd.run([
                        "images", "pull", "--hosts-dir", hosts, "--plain-http", "--snapshotter", "native", "--platform",
                        "linux/amd64", TestImages.demo,
                    ])
                }
                try await Task.sleep(for: delay)
                cluster.kill(0)
                let result = try await pull.value
                if result.status != .exited(0) { failures.append("round \(round), kill after \(delay): \(result)") }
                for digest in digests {
                    let expected = try layout.blob(digest)
                    if containerd.blob(digest) != expected { failures.append("round \(round): \(digest)") }
                }
                try await containerd.ctr("images", "rm", "--sync", TestImages.demo)
            }
            let broken = try await cluster.resumes
            print("\(rounds) pulls by containerd, \(broken) transfers resumed, failed: \(failures.count)")
            #expect(failures.isEmpty, "\(failures.prefix(3))")
        }
    }
}

/// Tests of several daemons with much to do; they run one after the other.
@Suite(.serialized) struct MirrorProcessTests {}
