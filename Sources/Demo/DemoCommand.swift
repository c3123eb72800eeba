import ArgumentParser
import Foundation
import HTTPServer
import Logging
import SpegelCommands

/// The demonstration as a program of its own, which `make demo` starts: three daemons, of which one has an image and
/// another pulls it, showing what happens.
@main
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract:
            "Three nodes on this machine: pulls what one has through another, kills the one that serves, and checks "
            + "every byte."
    )

    @Option(help: "DEBUG, INFO, WARN or ERROR.", transform: LogLevelOption.parse)
    var logLevel: Logger.Level = .info

    @Option(help: "The image: an OCI image layout.", transform: ScalarOption.text)
    var image: String

    @Option(help: "Directory for what the demo writes; made anew.", transform: ScalarOption.text)
    var workDir = ".build-demo/work"

    @Option(
        help: "Address of the first node's registry; the other nodes have the two addresses after it.",
        transform: ListenAddressOption.parse)
    var registryAddr = ListenAddress(host: "127.0.0.2", port: 5000)

    @Option(help: "The daemon's program; the default is `spegel` beside this one.", transform: ScalarOption.text)
    var spegel: String?

    @Flag(help: "Ends after the pulls instead of serving on.")
    var exit = false

    func validate() throws {
        guard DemoNode.consecutiveHosts(registryAddr.host ?? "", count: 3) != nil,
            (1..<UInt16.max - 1).contains(registryAddr.port)
        else {
            throw ValidationError(
                "'--registry-addr \(registryAddr)' needs an address such as 127.0.0.2 here, with two more after it, and "
                    + "a port from 1 to 65533.")
        }
    }

    func run() async throws {
        // A terminal that goes away is an error of that write, not the end of the process.
        signal(SIGPIPE, SIG_IGN)
        do {
            try await Demo(
                program: try spegel ?? Self.siblingProgram("spegel"), imagePath: image, workDirectory: workDir,
                registry: registryAddr, staysUp: !exit, terminal: .standardOutput, logger: .quiet(logLevel)
            ).run()
        } catch let failure as CommandFailure {
            FileHandle.standardError.write(Data("demo: \(failure)\n".utf8))
            throw ExitCode(failure.status)
        }
    }

    /// A program in the directory of this one.
    private static func siblingProgram(_ name: String) throws -> String {
        let files = FileManager.default
        guard let own = try? files.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
            throw CommandFailure("cannot find this program's own file; name the daemon's with --spegel")
        }
        let path = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
        guard files.isExecutableFile(atPath: path) else {
            throw CommandFailure("no program \(path); name the daemon's with --spegel", status: 64)
        }
        return path
    }
}
