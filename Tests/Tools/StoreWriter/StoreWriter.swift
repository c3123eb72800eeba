import ContentStore
import Foundation
import Logging
import NIOCore
import OCIDistribution

/// A process that uses a store on disk in ways a test process cannot: to be killed, on a full or read-only file system,
/// without other open files.
///
///     store-writer churn PATH SEED     writes, names and removes content until it is killed
///     store-writer fill PATH           writes until the file system is full; then checks what is there
///     store-writer read-only PATH      tries to write where that is not allowed; then reads
///     store-writer descriptors PATH    does everything many times and compares the number of open files
///     store-writer memory PATH COUNT   opens a layout of COUNT blobs that it makes, and prints how much memory that took
@main
struct StoreWriter {
    static func main() async {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3 else { return fail("usage: store-writer MODE PATH [NUMBER]") }
        let path = arguments[2]
        let number = arguments.count > 3 ? UInt64(arguments[3]) ?? 0 : 0
        do {
            switch arguments[1] {
            case "churn": try await churn(path, seed: number)
            case "fill": try await fill(path)
            case "read-only": try await readOnly(path)
            case "descriptors": try await descriptors(path)
            case "memory": try await memory(path, count: Int(number))
            default: fail("no mode \(arguments[1])")
            }
        } catch {
            fail("\(error)")
        }
    }

    /// Prints a line at once: the process may be killed at any time.
    static func say(_ line: String) {
        print(line)
        fflush(nil)
    }

    static func fail(_ message: String) {
        say("FAILED: \(message)")
        exit(1)
    }

    static func options(create: Bool = true) -> OnDiskContentStore.Options {
        var options = OnDiskContentStore.Options()
        options.createsIfMissing = create
        options.logger = Logger(label: "store-writer") { _ in SwiftLogNoOpLogHandler() }
        return options
    }

    // MARK: To be killed

    static func churn(_ path: String, seed: UInt64) async throws {
        say("opening")
        let store = try await OnDiskContentStore.open(path: path, options: options())
        say("open")
        // Several at once, so that a kill finds every kind of half-done work.
        await withTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask {
                    var random = Random(state: seed &* 31 &+ UInt64(lane))
                    while true {
                        do {
                            try await step(store, &random)
                        } catch {
                            fail("\(error)")
                        }
                    }
                }
            }
        }
    }

    static func step(_ store: OnDiskContentStore, _ random: inout Random) async throws {
        let layer = random.bytes(Int(random.next() % 200_000))
        let layerDigest = try await write(layer, to: store, pieces: Int(random.next() % 8) + 1)
        let diffID = layerDigest
        let config = Array(
            #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["\#(diffID)"]}}"#.utf8)
        let configDigest = try await write(config, to: store)
        let manifest = Array(
            """
            {"schemaVersion":2,"mediaType":"\(MediaType.imageManifest)",\
            "config":{"mediaType":"\(MediaType.imageConfig)","digest":"\(configDigest)","size":\(config.count)},\
            "layers":[{"mediaType":"\(MediaType.layer)","digest":"\(layerDigest)","size":\(layer.count)}]}
            """.utf8)
        let manifestDigest = try await write(manifest, to: store)
        let name = try Reference(
            registry: "registry.test", repository: "churn", tag: "t\(random.next() % 16)")
        do {
            try await store.tag(
                Descriptor(mediaType: .imageManifest, digest: manifestDigest, size: Int64(manifest.count)), as: name)
        } catch ContentStoreError.absent {
            // Another lane removed it.
        }
        switch random.next() % 4 {
        case 0: try await store.untag(name)
        case 1: try await store.remove(layerDigest)
        case 2:
            for image in try await store.images().prefix(4) { try await store.remove(image.target.digest) }
        default: break
        }
    }

    static func write(_ bytes: [UInt8], to store: OnDiskContentStore, pieces: Int = 1) async throws -> Digest {
        let digest = Digest.hash(.sha256, of: bytes)
        let writer = try await store.beginWrite(digest, size: Int64(bytes.count))
        var rest = ByteBuffer(bytes: bytes)
        let length = max(1, bytes.count / pieces)
        while let piece = rest.readSlice(length: min(length, rest.readableBytes)), piece.readableBytes > 0 {
            try await writer.append(piece)
        }
        _ = try await writer.commit()
        return digest
    }

    // MARK: Full and read-only

    static func fill(_ path: String) async throws {
        let store = try await OnDiskContentStore.open(path: path, options: options())
        var random = Random(state: 1)
        var written: [Digest] = []
        var failure: ContentStoreError?
        for _ in 0..<10_000 {
            do {
                written.append(try await write(random.bytes(100_000), to: store, pieces: 3))
            } catch let error as ContentStoreError {
                failure = error
                break
            }
        }
        guard case .noSpace? = failure else { return fail("the disk never was full: \(String(describing: failure))") }
        say("error: \(failure.map(String.init(describing:)) ?? "")")
        // Small files may still fit; what matters is that names are either changed or not.
        let first = Descriptor(mediaType: .octetStream, digest: written[0], size: 100_000)
        var named = 0
        for number in 0..<200 {
            do {
                try await store.tag(first, as: Reference(registry: "r.test", repository: "full", tag: "t\(number)"))
                named += 1
            } catch ContentStoreError.noSpace {
                break
            }
        }
        guard try await store.images().count == named else { return fail("images were lost") }
        try await checkEverything(path, digests: written, images: named)
        // Room again, and everything works again.
        try await store.remove(written[1])
        try await store.remove(written[2])
        _ = try await write(random.bytes(90_000), to: store)
        say("wrote \(written.count) blobs and \(named) names")
    }

    static func checkEverything(_ path: String, digests: [Digest], images: Int) async throws {
        let again = try await OnDiskContentStore.open(path: path, options: options(create: false))
        let report = try await again.verify()
        guard report.isSound, report.isComplete else { return fail("the store is not sound: \(report)") }
        guard report.blobs.count == digests.count else {
            return fail("\(report.blobs.count) blobs, expected \(digests.count)")
        }
        guard try await again.images().count == images else { return fail("the number of images differs") }
        let ingest = "\(path)/.spegel/ingest"
        // The file of a failed write is removed when the last thread releases it.
        var leftovers = try FileManager.default.contentsOfDirectory(atPath: ingest)
        for _ in 0..<6000 where !leftovers.isEmpty {
            try await Task.sleep(for: .milliseconds(10))
            leftovers = try FileManager.default.contentsOfDirectory(atPath: ingest)
        }
        guard leftovers.isEmpty else { return fail("left behind: \(leftovers)") }
    }

    static func readOnly(_ path: String) async throws {
        let store = try await OnDiskContentStore.open(path: path, options: options(create: false))
        let bytes: [UInt8] = [1, 2, 3]
        let images = try await store.images()
        guard let image = images.first else { return fail("no image") }
        func expectFailure(_ what: String, _ body: () async throws -> Void) async {
            do {
                try await body()
                fail("\(what) succeeded")
            } catch ContentStoreError.readOnly {
                say("\(what): read-only")
            } catch ContentStoreError.permissionDenied {
                say("\(what): permission denied")
            } catch {
                fail("\(what): \(error)")
            }
        }
        await expectFailure("write") { _ = try await write(bytes, to: store) }
        await expectFailure("tag") {
            try await store.tag(image.target, as: Reference(registry: "r.test", repository: "x", tag: "new"))
        }
        await expectFailure("untag") { try await store.untag(image.reference) }
        await expectFailure("remove") { try await store.remove(image.target.digest) }
        guard try await store.images() == images else { return fail("the images changed") }
        let report = try await store.verify()
        for blob in report.blobs { say("\(blob.digest) \(blob.outcome)") }
        say("remembered: \(report.isRemembered)")
        for blob in report.blobs where blob.outcome != .sound {
            guard try await store.open(blob.digest) == nil else { return fail("a bad blob is served") }
        }
        for content in try await store.contents(of: image) {
            guard let open = try await store.open(content.digest) else {
                return fail("\(content.digest) is not served")
            }
            _ = try await open.collect(upTo: 1 << 20)
        }
        // One that may be made where it cannot be.
        do {
            _ = try await OnDiskContentStore.open(path: "\(path)/new", options: options())
            fail("a layout was made")
        } catch ContentStoreError.readOnly {
            say("create: read-only")
        } catch ContentStoreError.permissionDenied {
            say("create: permission denied")
        }
    }

    // MARK: Figures

    static func descriptors(_ path: String) async throws {
        var random = Random(state: 2)
        func everything() async throws {
            let store = try await OnDiskContentStore.open(path: path, options: options())
            for _ in 0..<4 { try await step(store, &random) }
            let recorder = store.events()
            var iterator = recorder.makeAsyncIterator()
            _ = await iterator.next()
            for image in try await store.images() {
                for content in try await store.contents(of: image) {
                    _ = try await store.open(content.digest)?.collect(upTo: 1 << 20)
                    _ = store.openImmediately(content.digest)
                }
            }
            _ = try await store.open(Digest.hash(.sha256, of: [0]))
            let writer = try await store.beginWrite(Digest.hash(.sha256, of: [0]), size: 1)
            try? await writer.append(ByteBuffer(bytes: [1, 2]))
            let forgotten = try await store.beginWrite(Digest.hash(.sha256, of: [0]), size: 1)
            try await forgotten.append(ByteBuffer(bytes: [1]))
            _ = try? await forgotten.commit()
            _ = try await store.verify()
            _ = try? await OnDiskContentStore.open(path: "\(path)/blobs", options: options(create: false))
            await store.shutdown()
        }
        for _ in 0..<3 { try await everything() }
        let before = try openFiles()
        for _ in 0..<40 { try await everything() }
        // Closing happens on other threads and may take a moment.
        var after = try openFiles()
        for _ in 0..<6000 where after.count > before.count {
            try await Task.sleep(for: .milliseconds(10))
            after = try openFiles()
        }
        say("open files: \(before.count) before, \(after.count) after")
        if after.count > before.count { fail("files were left open: before \(before), after \(after)") }
    }

    /// What every open descriptor stands for, sorted. Without the runtime's own: Dispatch makes its timers and wake-ups
    /// when they are first used, which may be at any time.
    static func openFiles() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").compactMap {
            // The descriptor that lists the folder is closed by now.
            try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")
        }.filter { name in
            !["timerfd", "eventfd", "eventpoll"].contains { name.hasPrefix("anon_inode:[\($0)]") }
        }.sorted()
    }

    static func memory(_ path: String, count: Int) async throws {
        let blobs = "\(path)/blobs/sha256"
        try FileManager.default.createDirectory(atPath: blobs, withIntermediateDirectories: true)
        func put(_ bytes: [UInt8]) throws -> Descriptor {
            let digest = Digest.hash(.sha256, of: bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: "\(blobs)/\(digest.hex)"))
            return Descriptor(mediaType: .octetStream, digest: digest, size: Int64(bytes.count))
        }
        func json(_ descriptor: Descriptor, _ type: MediaType, _ name: String? = nil) -> String {
            let annotations = name.map { #","annotations":{"io.containerd.image.name":"\#($0)"}"# } ?? ""
            return
                #"{"mediaType":"\#(type)","digest":"\#(descriptor.digest)","size":\#(descriptor.size)\#(annotations)}"#
        }
        var entries: [String] = []
        let layersPerImage = 18
        for image in 0..<(count / (layersPerImage + 2)) {
            let config = try put(Array(#"{"config":"\#(image)"}"#.utf8))
            let layers = try (0..<layersPerImage).map { try put(Array("layer \($0) of \(image)".utf8)) }
            let manifest = try put(
                Array(
                    #"{"schemaVersion":2,"config":\#(json(config, .imageConfig)),"layers":[\#(layers.map { json($0, .layerGzip) }.joined(separator: ","))]}"#
                        .utf8))
            entries.append(json(manifest, .imageManifest, "registry.test/memory/image\(image):latest"))
        }
        try Data(#"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
            .write(to: URL(fileURLWithPath: "\(path)/index.json"))
        try Data(#"{"imageLayoutVersion":"1.0.0"}"#.utf8).write(to: URL(fileURLWithPath: "\(path)/oci-layout"))
        let before = try residentBytes()
        let started = ContinuousClock.now
        let store = try await OnDiskContentStore.open(path: path, options: options(create: false))
        let took = ContinuousClock.now - started
        let after = try residentBytes()
        say("\(try await store.images().count) images; opened in \(took); \((after - before) / 1024) KiB more memory")
    }

    static func residentBytes() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
    }
}

/// SplitMix64.
struct Random {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count { withUnsafeBytes(of: next()) { bytes += $0 } }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}
