import Foundation
import MirrorServer
import NodeConfiguration

extension BasicCredentials {
    /// Where a secret with user name and password is mounted.
    static let secretDirectory = "/etc/secrets/basic-auth"

    /// Reads the files `username` and `password` of a directory; nil when there is no such directory.
    ///
    /// A newline at the end of a file does not count.
    ///
    /// - Throws: ``StartFailure`` when only one of both can be read, or one is empty: serving without a password by
    ///   mistake would be worse than not to serve.
    static func load(from directory: String = secretDirectory) throws -> BasicCredentials? {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: directory, isDirectory: &isDirectory) else { return nil }
        func read(_ name: String) throws -> String {
            let path = "\(directory)/\(name)"
            do {
                var text = try String(contentsOf: URL(fileURLWithPath: path), encoding: .utf8)
                while text.last?.isNewline == true { text.removeLast() }
                guard !text.isEmpty else { throw StartFailure("\(path) is empty") }
                return text
            } catch let failure as StartFailure {
                throw failure
            } catch {
                throw StartFailure(
                    "\(path) cannot be read: \(fileErrorReason(error))",
                    hint: "mount a secret with the keys username and password, or none")
            }
        }
        return BasicCredentials(username: try read("username"), password: try read("password"))
    }
}
