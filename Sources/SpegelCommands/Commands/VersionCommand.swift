import ArgumentParser
import CBuildInfo

/// Which version this is.
enum Version {
    static let current = "0.1.0"

    /// The operating system and architecture this was compiled for, in Go's words, as OCI platforms have them.
    static var platform: String {
        #if os(Linux)
            let system = "linux"
        #else
            let system = "darwin"
        #endif
        #if arch(x86_64)
            let architecture = "amd64"
        #elseif arch(arm64)
            let architecture = "arm64"
        #else
            let architecture = "unknown"
        #endif
        return "\(system)/\(architecture)"
    }

    /// The commit this was built from; nil when the build was not told (`SPEGEL_COMMIT`).
    static var commit: String? {
        let text = String(cString: spegel_build_commit())
        return text.isEmpty ? nil : text
    }

    /// Whether the optimizer was on.
    static var configuration: String {
        #if DEBUG
            "debug"
        #else
            "release"
        #endif
    }

    /// The compiler this was built with, as far as the source can tell.
    static var compiler: String {
        #if compiler(>=6.4)
            "swift 6.4 or later"
        #elseif compiler(>=6.3)
            "swift 6.3"
        #elseif compiler(>=6.2)
            "swift 6.2"
        #else
            "swift 6.1"
        #endif
    }
}

/// `spegel version`.
struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Prints the version.")

    enum Format {
        case text
        case json

        @Sendable static func parse(_ text: String) throws -> Format {
            switch text {
            case "text": return .text
            case "json": return .json
            default: throw OptionError("text or json")
            }
        }
    }

    @OptionGroup var global: GlobalOptions

    @Option(help: "text or json.", transform: Format.parse)
    var format: Format = .text

    func run() {
        switch format {
        case .text:
            let commit = Version.commit.map { ", commit \($0)" } ?? ""
            print(
                "spegel \(Version.current) \(Version.platform) (\(Version.compiler), \(Version.configuration)\(commit))"
            )
        case .json:
            var json = JSONLine()
            json.begin()
            json.field("version", text: Version.current)
            json.field("platform", text: Version.platform)
            json.field("compiler", text: Version.compiler)
            json.field("configuration", text: Version.configuration)
            json.field("commit", text: Version.commit ?? "unknown")
            json.end()
            print(String(decoding: json.bytes, as: UTF8.self))
        }
    }
}
