import Metrics
import OCIDistribution
import Testing

@testable import MirrorServer

@Suite struct RegistryLabelsTests {
    @Test func inventedNamesDoNotTakeTheNameOfARealRegistry() {
        let labels = RegistryLabels()
        labels.addKnown(["docker.io"])
        var seen: Set<String> = []
        for number in 0..<3000 { seen.insert(labels.label(for: "invented-\(number).example")) }
        #expect(seen.count == RegistryLabels.requestedLimit + 1)
        #expect(seen.contains("other"))
        #expect(labels.label(for: "docker.io") == "docker.io")
        #expect(labels.label(for: "ghcr.io") == "other")
        // Its first image has come into the store.
        labels.addKnown(["ghcr.io"])
        #expect(labels.label(for: "ghcr.io") == "ghcr.io")
        // A name that was invented before keeps its label, and gets no second one.
        labels.addKnown(["invented-0.example"])
        #expect(labels.label(for: "invented-0.example") == "invented-0.example")
        #expect(labels.labels.count == RegistryLabels.requestedLimit + 3)
    }

    @Test func knownRegistriesAreLimited() {
        let labels = RegistryLabels()
        labels.addKnown((0..<1000).map { "r\($0).example" })
        #expect(labels.labels.count == RegistryLabels.knownLimit + 1)
    }

    @Test func aRequestWithoutRegistryHasAnEmptyLabel() {
        #expect(RegistryLabels().label(for: nil) == "")
    }

    /// The series of a metrics page that begin with a name.
    private func series(_ registry: PrometheusRegistry, _ prefix: String) -> [Substring] {
        String(decoding: registry.text(), as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix(prefix) }
    }

    @Test func allSeriesBeginWithZero() {
        let registry = PrometheusRegistry()
        let labels = RegistryLabels()
        labels.addKnown(["docker.io"])
        let metrics = MirrorMetrics(factory: registry, router: "libp2p", registries: labels)
        _ = HTTPMetrics(factory: registry)
        _ = AdvertiserMetrics(factory: registry, registries: labels)
        let docker = { (name: String) in series(registry, name).filter { $0.contains(#"registry="docker.io""#) } }
        #expect(docker("spegel_mirror_misses_total{").count == MissReason.allCases.count)
        #expect(docker("spegel_mirror_requests_total{").count == 2)
        #expect(docker("spegel_advertised_images{").count == 1)
        for name in ["saved", "unverified", "served", "received"] {
            #expect(docker("spegel_mirror_\(name)_bytes_total{").count == 1)
        }
        #expect(
            series(registry, "spegel_mirror_peer_failures_total{").count == MirrorMetrics.peerFailures.count)
        #expect(
            series(registry, #"http_request_duration_seconds_count{code="404",handler="blob",method="GET"}"#).count == 1
        )
        let values = series(registry, "").filter { !$0.hasPrefix("#") }.compactMap { $0.split(separator: " ").last }
        #expect(values.count > 300)
        #expect(values.allSatisfy { $0 == "0" })
        // A registry whose first image arrives later.
        labels.addKnown(["quay.io"])
        #expect(series(registry, #"spegel_mirror_misses_total{reason="absent",registry="quay.io"} 0"#).count == 1)
        _ = metrics
    }

    @Test func hitsAndMissesAreCountedByRegistryAndReason() {
        let registry = PrometheusRegistry()
        let metrics = MirrorMetrics(factory: registry, router: "libp2p")
        let request = DistributionRequest(
            kind: .blob(repository: "a/b", Digest.hash(of: "x".utf8)), registry: "docker.io")
        metrics.hit(request, clients: 3, bytes: 100, isVerified: true)
        metrics.hit(request, clients: 1, bytes: 5, isVerified: false)
        metrics.miss(request, clients: 2, reason: .timeout)
        metrics.miss(request, clients: 1, reason: .filtered)
        metrics.served(request, bytes: 9, to: "10.0.0.1")
        let record = metrics.startTransfer(request)
        record.received(4, offset: 4)
        for line in [
            #"spegel_mirror_requests_total{cache="hit",cache_type="hit",registry="docker.io"} 4"#,
            #"spegel_mirror_requests_total{cache="miss",cache_type="miss",registry="docker.io"} 2"#,
            #"spegel_mirror_misses_total{reason="timeout",registry="docker.io"} 2"#,
            #"spegel_mirror_misses_total{reason="filtered",registry="docker.io"} 1"#,
            #"spegel_mirror_saved_bytes_total{registry="docker.io"} 300"#,
            #"spegel_mirror_unverified_bytes_total{registry="docker.io"} 5"#,
            #"spegel_mirror_served_bytes_total{registry="docker.io"} 9"#,
            #"spegel_mirror_received_bytes_total{registry="docker.io"} 4"#,
            "spegel_mirror_shared_requests_total 2",
        ] {
            #expect(series(registry, line).count == 1, "\(line)")
        }
        record.end()
        let snapshot = metrics.traffic.snapshot()
        #expect(snapshot.total.hits == 4)
        #expect(snapshot.total.misses == ["timeout": 2, "filtered": 1])
        #expect(snapshot.total.servedBytes == 9)
        #expect(metrics.summary.hits == 4)
        #expect(metrics.summary.misses == 2)
    }

    @Test(
        arguments: [
            ([], MissReason.absent), (["absent"], .absent), (["absent", "unreachable"], .unreachable),
            (["unreachable", "timeout"], .timeout), (["busy", "mismatch"], .mismatch), (["stalled"], .timeout),
            (["timeout", "digest", "absent"], .refused),
            (["busy"], .refused),
        ] as [([String], MissReason)])
    func theReasonOfAMissIsWhatSaysMost(_ failures: [String], _ reason: MissReason) {
        var tally = FailureTally()
        for failure in failures {
            #expect(MirrorMetrics.peerFailures.contains(failure))
            tally.add(failure)
        }
        #expect(tally.missReason == reason)
    }
}
