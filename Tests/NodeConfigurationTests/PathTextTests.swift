import Foundation
import Testing

@testable import NodeConfiguration

@Suite struct PathTextTests {
    @Test(arguments: [
        ("/etc/containerd/config.toml", "/etc/containerd", "config.toml"), ("/a", "/", "a"), ("a", "", "a"),
        ("/", "/", ""),
        ("/a/b/", "/a", "b"), ("a/b", "a", "b"), ("/a//b", "/a", "b"), ("", "", ""),
    ])
    func directoriesAndNames(path: String, directory: String, name: String) {
        #expect(path.directoryPath == directory)
        #expect(path.fileName == name)
    }

    @Test(arguments: [
        ("/etc//containerd/./certs.d/", "/etc/containerd/certs.d"), ("/a/../b", "/b"), ("/../a", "/a"),
        ("a/./b", "a/b"),
        ("../a", "../a"), ("a/../../b", "../b"), ("/", "/"), ("", ""),
    ])
    func normalization(path: String, normalized: String) {
        #expect(path.normalizedPath == normalized)
    }

    @Test func reasonsAreTheSystems() throws {
        do {
            _ = try Data(contentsOf: URL(fileURLWithPath: "/nonexistent/file"))
            Issue.record("there is such a file")
        } catch {
            #expect(fileErrorReason(error) == "No such file or directory")
        }
    }
}
