import ArgumentParser
import ContentStore
import Foundation
import Logging
import MirrorServer
import NodeConfiguration
import OCIDistribution
import PeerRoutingCore
import RegistryClient

/// `spegel pull REF`: pulls an image through a mirror and shows what came from where.
struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Pulls an image through a mirror, verifies every byte and shows what was pulled.",
        discussion: """
            Without --output it only measures: what was pulled is thrown away. Of an image for several platforms it pulls that \
            of this machine; what is left out is named.

            Credentials are those of the mirror: --username with --password-stdin, else those that Docker's config.json \
            ($DOCKER_CONFIG or ~/.docker) has for the mirror's host, else the files username and password in \
            --credentials-dir. That one is read without the option too, when the mirror is on this machine.
            """
    )

    @OptionGroup var global: GlobalOptions

    @Option(help: "The mirror, as http(s)://host[:port].", transform: RegistryURL.parse)
    var mirror = RegistryURL.registry(scheme: "http", host: "127.0.0.1:5000")

    @Option(help: "An OCI image layout to pull into; made when it is not there.", transform: ScalarOption.text)
    var output: String?

    @Option(help: "The platform to pull, as os/architecture[/variant].", transform: PlatformOption.parse)
    var platform: Platform?

    @Option(
        help: "Pull all platforms of the image that the mirror has.", transform: ScalarOption.boolean)
    var allPlatforms = false

    @Option(help: "The user name for the mirror.", transform: ScalarOption.text)
    var username: String?

    @Option(help: "Read the password for --username from standard input.", transform: ScalarOption.boolean)
    var passwordStdin = false

    @Option(
        help: "A directory with the files username and password, as the secret of basic authentication is mounted.",
        transform: ScalarOption.text)
    var credentialsDir: String?

    @Argument(help: "The image, such as docker.io/library/nginx:1.27 or nginx.", transform: ImageName.parse)
    var reference: Reference

    func validate() throws {
        guard mirror != .wildcard else { throw ValidationError("'--mirror' must name a host.") }
        guard platform == nil || !allPlatforms else {
            throw ValidationError("'--platform' and '--all-platforms' exclude each other.")
        }
        guard (username != nil) == passwordStdin else {
            throw ValidationError("'--username' and '--password-stdin' belong together.")
        }
        guard username?.contains(":") != true else { throw ValidationError("'--username' must have no colon.") }
    }

    func run() async throws {
        let logger = Logger.quiet(global.logLevel)
        guard case .registry(let scheme, let host) = mirror else { throw ExitCode.validationFailure }
        let endpoint = RegistryEndpoint(scheme: scheme, authority: host)
        if let output { return try await pull(into: output, endpoint, logger) }
        let temporary = FileManager.default.temporaryDirectory.appendingPathComponent("spegel-pull-\(UUID())").path
        defer { try? FileManager.default.removeItem(atPath: temporary) }
        try await pull(into: temporary, endpoint, logger)
    }

    private var platforms: PlatformSelection {
        allPlatforms ? .all : platform.map { .only($0) } ?? .current
    }

    private func credentials(for endpoint: RegistryEndpoint) throws -> BasicCredentials? {
        if let username {
            return BasicCredentials(username: username, password: try MirrorCredentials.password(from: 0))
        }
        return try MirrorCredentials.find(
            for: endpoint, directory: credentialsDir, environment: ProcessInfo.processInfo.environment)
    }

    private func pull(into path: String, _ endpoint: RegistryEndpoint, _ logger: Logger) async throws {
        let terminal = Terminal.standardOutput
        do {
            let credentials = try credentials(for: endpoint)
            let store = try await OnDiskContentStore.open(path: path, options: .receiving(logger: logger))
            let result = try await VerifiedPull(
                endpoint: endpoint, platforms: platforms, authorization: credentials?.authorization, store: store,
                terminal: terminal, logger: logger
            ).run(reference)
            for line in PullTable(result.pull, result.verification).lines { terminal.line(line) }
            for line in VerificationSummary(result.verification).lines(on: terminal) { terminal.line(line) }
            guard result.isSound else { throw ExitCode.failure }
        } catch let error as StartFailure {
            throw CommandFailure("\(error)")
        } catch let error as PullError {
            switch error {
            case .noPlatform: throw CommandFailure("\(error); choose with '--platform', or take '--all-platforms'")
            case .unauthorized:
                throw CommandFailure("\(error); give them with '--username' and '--password-stdin'")
            default: throw CommandFailure("\(error)")
            }
        } catch let error as ContentStoreError {
            throw CommandFailure("\(error)")
        }
    }
}

/// Reads names of images.
enum ImageName {
    /// The transform of the argument: short names are Docker's, and a name without tag or digest means `latest`.
    @Sendable static func parse(_ text: String) throws -> Reference {
        do {
            return try Reference(parsingWithDockerDefaults: text).withDefaultTag
        } catch {
            throw OptionError("an image such as docker.io/library/nginx:1.27 (\(error))")
        }
    }
}

/// Reads platforms.
enum PlatformOption {
    /// The transform of the option.
    @Sendable static func parse(_ text: String) throws -> Platform {
        guard let platform = Platform(parsing: text) else {
            throw OptionError("os/architecture[/variant], such as linux/arm64 or linux/arm/v7")
        }
        return platform
    }
}

/// Finds the credentials that a mirror wants.
enum MirrorCredentials {
    /// Most bytes of a configuration file or a password that are read.
    private static let maximumSize = 1 << 20

    /// The credentials for a server: those of Docker's `config.json`, else those of a directory.
    ///
    /// - Parameters:
    ///   - directory: has the files `username` and `password`. When nil, the directory where the daemon has them, for a server on
    ///     this machine only: the cluster's password must not reach another by mistake.
    ///   - environment: `DOCKER_CONFIG`, else `HOME`, names the directory of `config.json`.
    /// - Throws: ``CommandFailure`` when the file or the directory cannot be used.
    static func find(
        for endpoint: RegistryEndpoint, directory: String?, environment: [String: String]
    ) throws -> BasicCredentials? {
        if let directory {
            guard let credentials = try load(directory) else {
                throw CommandFailure("'--credentials-dir' \(directory): there is no such directory")
            }
            return credentials
        }
        let folder = environment["DOCKER_CONFIG"] ?? environment["HOME"].map { $0 + "/.docker" }
        if let folder, let found = try docker(folder + "/config.json", authority: endpoint.authority) { return found }
        guard endpoint.isLoopback else { return nil }
        return try load(BasicCredentials.secretDirectory)
    }

    private static func load(_ directory: String) throws -> BasicCredentials? {
        do {
            return try BasicCredentials.load(from: directory)
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    /// The password that a file descriptor has, without the end of its last line.
    ///
    /// - Throws: ``CommandFailure`` when it is empty.
    static func password(from descriptor: Int32) throws -> String {
        var text = String(decoding: bytes(of: descriptor), as: UTF8.self)
        while text.last?.isNewline == true { text.removeLast() }
        guard !text.isEmpty else { throw CommandFailure("'--password-stdin': there is no password on standard input") }
        return text
    }

    /// The bytes up to the end of a file, at most ``maximumSize``. Without `FileHandle`, which brings ICU into a program that is
    /// linked statically.
    private static func bytes(of descriptor: Int32) -> Data {
        var result = Data()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while result.count < maximumSize {
            let count = read(descriptor, &buffer, min(buffer.count, maximumSize - result.count))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            result.append(contentsOf: buffer[..<count])
        }
        return result
    }

    private struct DockerConfiguration: Decodable {
        struct Entry: Decodable {
            var auth: String?
            var username: String?
            var password: String?
        }
        var auths: [String: Entry]?
    }

    /// What the `auths` of a `config.json` have for a host. Helpers that keep credentials elsewhere are not called.
    private static func docker(_ path: String, authority: String) throws -> BasicCredentials? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw CommandFailure("\(path) cannot be read: \(String(cString: strerror(errno)))") }
        defer { close(file) }
        let configuration: DockerConfiguration
        do {
            configuration = try JSONDecoder().decode(DockerConfiguration.self, from: bytes(of: file))
        } catch {
            throw CommandFailure("\(path) cannot be parsed: \(error)")
        }
        let entries = configuration.auths ?? [:]
        // A whole host is meant, also where the entry is a URL, as Docker Hub's is.
        let match = entries.sorted { $0.key < $1.key }.first { key, _ in host(of: key) == authority.lowercased() }
        guard let (key, entry) = match else { return nil }
        if let name = entry.username, let password = entry.password, !name.isEmpty {
            return BasicCredentials(username: name, password: password)
        }
        guard let auth = entry.auth, !auth.isEmpty else { return nil }
        guard let data = Data(base64Encoded: auth),
            case let text = String(decoding: data, as: UTF8.self), let colon = text.firstIndex(of: ":")
        else { throw CommandFailure("\(path): the auth of \(printableASCII(key)) is not base64 of NAME:PASSWORD") }
        return BasicCredentials(
            username: String(text[..<colon]), password: String(text[text.index(after: colon)...]))
    }

    /// The host and port of a key: `host[:port]` or a URL.
    private static func host(of key: String) -> String {
        var rest = key.lowercased()[...]
        for scheme in ["http://", "https://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
        return String(rest.prefix { $0 != "/" })
    }
}

extension RegistryEndpoint {
    /// Whether the server is on this machine.
    fileprivate var isLoopback: Bool {
        guard let address = try? ListenAddress(parsing: authority.contains(":") ? authority : authority + ":80") else {
            return false
        }
        return address.host == "localhost" || address.host.flatMap { IPAddress($0) }?.isLoopback == true
    }
}
