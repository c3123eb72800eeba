import ContainerdTestKit
import Foundation
import TestSupport

/// What several suites measure: content, two containerds of which the first has it, and pairs of daemons on these. Made when
/// it is first needed.
final class Lab {
    private let context: BenchmarkContext
    private var madeImages: BenchmarkImages?
    private var stores: [ContainerdDaemon] = []
    private var madePairs: [DaemonPair] = []

    init(_ context: BenchmarkContext) { self.context = context }

    func images() throws -> BenchmarkImages {
        if let madeImages { return madeImages }
        let images = try BenchmarkImages(layerBytes: context.blobSize.bytes)
        madeImages = images
        return images
    }

    /// Our pair of daemons first, then that of `--against`; none where this is not root. All run on the same containerds.
    func pairs() async throws -> [DaemonPair] {
        guard geteuid() == 0, madePairs.isEmpty else { return madePairs }
        let images = try images()
        let archive = images.directory + ".tar"
        _ = try Tool.run("/bin/tar", ["-C", images.directory, "-cf", archive, "."])
        defer { try? FileManager.default.removeItem(atPath: archive) }
        for _ in 0..<2 { stores.append(try await ContainerdDaemon.start()) }
        try await stores[0].ctr("images", "import", "--all-platforms", "--no-unpack", archive)
        var programs = [("spegel", context.program)]
        if let other = context.against { programs.append((other.name, other.program)) }
        for (index, program) in programs.enumerated() {
            let addresses = Array(BenchmarkNamespace.addresses[(2 * index)..<(2 * index + 2)])
            let pair = try DaemonPair(program.0, program: program.1, addresses: addresses, stores: stores)
            madePairs.append(pair)
            try await pair.start(images)
        }
        return madePairs
    }

    /// Ends everything.
    func close() async {
        for pair in madePairs { pair.stop() }
        madePairs = []
        for store in stores { try? await store.stop() }
        stores = []
        madeImages = nil
    }
}
