import Foundation
import PeerTestKit
import Testing

@testable import Libp2p

@Suite struct NodeIdentityTests {
    private func withDirectory(_ body: (String) throws -> Void) throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("identity-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: directory) }
        try body(directory.path)
    }

    private func mode(_ path: String) throws -> Int {
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        return try #require(attributes[.posixPermissions] as? NSNumber).intValue
    }

    @Test func pemVector() throws {
        let vectors = try Vectors.load()
        let identity = try NodeIdentity(seed: hex(vectors.identity("11").seed))
        #expect(PrivateKeyPEM.encode(identity.privateKey) == vectors.pkcs8PEM)
        #expect(try NodeIdentity(PrivateKeyPEM.decode(vectors.pkcs8PEM)).peerID == identity.peerID)
        let windows = vectors.pkcs8PEM.replacingOccurrences(of: "\n", with: "\r\n")
        #expect(try NodeIdentity(PrivateKeyPEM.decode("comment\n" + windows)).peerID == identity.peerID)
    }

    @Test func createdOnceThenKept() throws {
        try withDirectory { directory in
            let nested = directory + "/a/b"
            let first = try NodeIdentity.loadOrCreate(inDirectory: nested)
            let second = try NodeIdentity.loadOrCreate(inDirectory: nested + "/")
            #expect(first.peerID == second.peerID)
            #expect(try mode(nested + "/private.key") == 0o600)
            // 0755 less what the process' mask forbids.
            #expect(try mode(nested) & ~0o755 == 0)
            #expect(try mode(nested) & 0o700 == 0o700)
            #expect(try FileManager.default.contentsOfDirectory(atPath: nested) == ["private.key"])
        }
    }

    @Test func anotherImplementationsKeyIsRead() throws {
        try withDirectory { directory in
            let vectors = try Vectors.load()
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try vectors.pkcs8PEM.write(toFile: directory + "/private.key", atomically: true, encoding: .utf8)
            let identity = try NodeIdentity.loadOrCreate(inDirectory: directory)
            #expect(identity.peerID.description == (try vectors.identity("11").base58))
        }
    }

    @Test(arguments: [
        "", "garbage", "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n",
        // An X25519 key.
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIBERERERERERERERERERERERERERERERERERERERERER\n"
            + "-----END PRIVATE KEY-----\n",
        String(repeating: "x", count: 20_000),
    ])
    func unusableFileIsAnErrorAndKept(_ text: String) throws {
        try withDirectory { directory in
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            let path = directory + "/private.key"
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            let error = #expect(throws: IdentityFileError.self) {
                try NodeIdentity.loadOrCreate(inDirectory: directory)
            }
            #expect(error?.path == path)
            #expect(try String(contentsOfFile: path, encoding: .utf8) == text)
        }
    }

    @Test func aFileInPlaceOfTheDirectoryIsReported() throws {
        try withDirectory { directory in
            try "x".write(toFile: directory, atomically: true, encoding: .utf8)
            let error = #expect(throws: IdentityFileError.self) {
                try NodeIdentity.loadOrCreate(inDirectory: directory + "/data")
            }
            #expect(error?.path.hasPrefix(directory) == true)
        }
    }

    @Test func mutatedKeysNeverCrash() throws {
        var random = SplitMix64(seed: 9)
        let pem = Array(try Vectors.load().pkcs8PEM.utf8)
        for _ in 0..<5000 {
            _ = try? PrivateKeyPEM.decode(String(decoding: random.mutate(pem), as: UTF8.self))
        }
    }
}
