import Foundation

/// A directory of one test, removed with the last reference to it.
///
/// The path is short, because Unix socket paths may have no more than 107 bytes.
package final class TemporaryDirectory: Sendable {
    package let path: String

    /// What has to be free on a memory file system for it to be used, in bytes: in a container it may have 64 MiB.
    private static let memoryNeeded: UInt64 = 4 << 30

    /// Creates a directory.
    ///
    /// - Parameter inMemory: On a memory file system that has room, for what would otherwise wait for disks.
    package init(_ name: String = "t", inMemory: Bool = false) throws {
        let base = inMemory && Self.hasMemory(at: "/dev/shm") ? "/dev/shm" : "/tmp"
        var template = Array("\(base)/spegel-\(name).XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw POSIXFailure("mkdtemp", errno) }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The path of something in the directory.
    package func path(_ name: String) -> String {
        "\(path)/\(name)"
    }

    /// Writes a file, making its directories, and returns its path.
    @discardableResult
    package func write(_ text: String, to name: String) throws -> String {
        let file = path(name)
        try FileManager.default.createDirectory(
            atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        return file
    }

    private static func hasMemory(at path: String) -> Bool {
        var information = statvfs()
        guard FileManager.default.isWritableFile(atPath: path), statvfs(path, &information) == 0 else { return false }
        return UInt64(information.f_bavail) * UInt64(information.f_frsize) >= memoryNeeded
    }
}
