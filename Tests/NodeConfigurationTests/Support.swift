import Foundation
import NodeConfiguration

/// A directory of its own for one test, removed with it.
final class ScratchDirectory: Sendable {
    let path: String

    init() {
        path = FileManager.default.temporaryDirectory.path + "/node-configuration-\(UUID().uuidString)"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ files: [String: String], below directory: String = "") throws {
        for (name, text) in files {
            let file = path + "/" + directory + (directory.isEmpty ? "" : "/") + name
            try FileManager.default.createDirectory(
                atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        }
    }

    /// The regular files below a directory, by relative path.
    func files(below directory: String = "") -> [String: String] {
        let root = directory.isEmpty ? path : path + "/" + directory
        var result: [String: String] = [:]
        for name in (try? FileManager.default.subpathsOfDirectory(atPath: root)) ?? [] {
            var isDirectory: ObjCBool = false
            guard FileManager.default.fileExists(atPath: root + "/" + name, isDirectory: &isDirectory),
                !isDirectory.boolValue
            else { continue }
            result[name] = String(
                decoding: FileManager.default.contents(atPath: root + "/" + name) ?? Data(), as: UTF8.self)
        }
        return result
    }

    /// Everything below, empty directories included.
    func entries(below directory: String = "") -> [String] {
        ((try? FileManager.default.subpathsOfDirectory(atPath: directory.isEmpty ? path : path + "/" + directory)) ?? [])
            .sorted()
    }
}

/// A text without white space at line ends and empty lines, as two writers of one format may differ in them.
func normalized(_ text: String) -> String {
    text.split(separator: "\n").map { $0.filter { $0 != " " && $0 != "\t" && $0 != "\r" } }.filter { !$0.isEmpty }
        .joined(separator: "\n")
}

func normalized(_ files: [String: String]) -> [String: String] { files.mapValues(normalized) }

/// A small generator with a seed, so that a failure can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
