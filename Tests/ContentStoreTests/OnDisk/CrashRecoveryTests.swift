import ContentStore
import ContentStoreConformance
import Foundation
import Logging
import OCIDistribution
import TestSupport
import Testing

/// Killed writers, full and read-only file systems, missing permissions: in processes of their own.
@Suite struct CrashRecoveryTests {
    /// 200 kills in all, in lanes that share the cores.
    @Test(arguments: 0..<4) func aKilledWriterLeavesASoundStore(_ lane: Int) async throws {
        var random = SplitMix64(seed: UInt64(lane) + 1)
        var directory = try TemporaryDirectory()
        for round in 0..<50 {
            // Fresh now and then, so that the making of a layout is hit as well and the layout stays small.
            if round % 5 == 0 { directory = try TemporaryDirectory() }
            let path = "\(directory.path)/layout"
            let seed = "\(lane * 1000 + round)"
            let tool = try await ChildProcess.start([try Project.program("store-writer"), "churn", path, seed])
            // Sometimes while opening, mostly at work.
            let awaited = round % 4 == 0 ? "opening" : "open\n"
            let limit = ContinuousClock.now + .seconds(60)
            while !tool.output.contains(awaited) {
                try #require(ContinuousClock.now < limit, "the writer does not start: \(tool.output)")
                try await Task.sleep(for: .milliseconds(1))
            }
            try await Task.sleep(for: .microseconds(Int(random.next() % (round % 4 == 0 ? 6_000 : 60_000))))
            tool.send(SIGKILL)
            #expect(try await tool.wait() == .signalled(SIGKILL), "\(tool.output)")
            try await checkSoundness(path, "lane \(lane), round \(round)")
        }
    }

    private func checkSoundness(_ path: String, _ context: Comment) async throws {
        var options = OnDiskContentStore.Options()
        options.createsIfMissing = true
        options.watchesChanges = false
        options.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let store = try await OnDiskContentStore.open(path: path, options: options)
        let report = try await store.verify()
        #expect(report.isSound, context)
        let bad = report.blobs.filter { $0.outcome != .sound && $0.outcome != .missing }
        #expect(bad == [], context)
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(path)/index.json"))
        let index = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any], context)
        #expect((index["manifests"] as? [Any])?.count == (try await store.images().count), context)
        let ingest = "\(path)/.spegel/ingest"
        if FileManager.default.fileExists(atPath: ingest) {
            #expect(try FileManager.default.contentsOfDirectory(atPath: ingest).isEmpty, context)
        }
        #expect(!FileManager.default.fileExists(atPath: "\(path)/.spegel/quarantine"), context)
    }

    @Test func aFullDiskIsReportedAndDamagesNothing() async throws {
        let directory = try TemporaryDirectory()
        let output = try await inMountNamespace(
            """
            mount -t tmpfs -o size=2m none "$1" && exec "$0" fill "$1/layout"
            """, directory.path)
        #expect(output.contains("error: no space left: "))
    }

    @Test func aReadOnlyLayoutIsServedAndRefusesWrites() async throws {
        let (layout, altered) = try readOnlyLayout()
        let output = try await inMountNamespace(
            """
            mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$0" read-only "$1"
            """, layout.path)
        for what in ["write", "tag", "untag", "remove", "create"] { #expect(output.contains("\(what): read-only")) }
        #expect(output.contains("remembered: false"))
        #expect(output.contains("\(altered) altered"))
    }

    @Test func missingPermissionsAreReported() async throws {
        let (layout, altered) = try readOnlyLayout()
        let manager = FileManager.default
        try manager.setAttributes(
            [.posixPermissions: 0o755], ofItemAtPath: (layout.path as NSString).deletingLastPathComponent)
        let program = try Project.program("store-writer")
        // Root may do everything, so it runs as another user, who must be able to reach the program.
        let directory = try TemporaryDirectory()
        try manager.setAttributes([.posixPermissions: 0o755], ofItemAtPath: directory.path)
        let copy = "\(directory.path)/store-writer"
        // By a process that starts no others: one started while the copy is open for writing would keep it busy.
        _ = try await Command.check(["cp", program, copy])
        let arguments = [copy, "read-only", layout.path]
        let output: String
        if getuid() == 0 {
            output = try await Command.check(["setpriv", "--reuid=65534", "--clear-groups"] + arguments)
        } else {
            for name in ["", "/blobs", "/blobs/sha256"] {
                try manager.setAttributes([.posixPermissions: 0o555], ofItemAtPath: layout.path + name)
            }
            output = try await Command.check(arguments)
        }
        for what in ["write", "tag", "untag", "remove", "create"] {
            #expect(output.contains("\(what): permission denied"))
        }
        #expect(output.contains("remembered: false"))
        #expect(output.contains("\(altered) altered"))
    }

    @Test func noFilesAreLeftOpen() async throws {
        let directory = try TemporaryDirectory()
        let output = try await Command.check([
            try Project.program("store-writer"), "descriptors", "\(directory.path)/layout",
        ])
        #expect(output.contains("open files: "))
    }

    /// A layout with one bad blob that nothing refers to.
    private func readOnlyLayout() throws -> (Layout, Digest) {
        var sample = SampleContent(seed: 500)
        let layout = try Layout()
        let image = sample.image()
        try layout.put(image)
        try layout.name(image.manifest.descriptor, "r.test/x:1")
        let altered = sample.layer()
        try layout.put(altered.bytes.reversed(), as: altered.digest)
        return (layout, altered.digest)
    }

    /// Runs a script in a mount namespace of its own. `$0` is the program, `$1` the path.
    private func inMountNamespace(_ script: String, _ path: String) async throws -> String {
        let user = getuid() == 0 ? [] : ["--map-root-user"]
        return try await Command.check(
            ["unshare", "--mount"] + user + ["sh", "-c", script, try Project.program("store-writer"), path])
    }
}
