import Foundation

/// A directory of one test, removed with the last reference to it.
///
/// The path is short, because Unix socket paths may have no more than 107 bytes.
final class TemporaryDirectory: Sendable {
    let path: String

    init(_ name: String = "t") throws {
        var template = Array("/tmp/spegel-\(name).XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw POSIXFailure("mkdtemp", errno) }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The path of something in the directory.
    func path(_ name: String) -> String {
        "\(path)/\(name)"
    }

    /// Writes a file, making its directories, and returns its path.
    @discardableResult
    func write(_ text: String, to name: String) throws -> String {
        let file = path(name)
        try FileManager.default.createDirectory(
            atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        return file
    }
}

/// A system call that failed.
struct POSIXFailure: Error, CustomStringConvertible {
    var description: String

    init(_ call: String, _ code: Int32) {
        description = "\(call): \(String(cString: strerror(code)))"
    }
}
