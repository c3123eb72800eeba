import Foundation

/// A server in a process of its own that is measured.
protocol RivalServer {
    var name: String { get }
    /// The IPv4 address it listens on.
    var host: String { get }
    var port: Int { get }
    /// The processes that do the work.
    var processes: [Int32] { get }
    func blobPath(_ layout: ServedLayout) -> String
    func manifestPath(_ layout: ServedLayout) -> String
    func stop()
}

extension RivalServer {
    var host: String { "127.0.0.1" }
}

/// This project's server: this program run again with a hidden subcommand.
final class OwnServer: RivalServer {
    let name = "spegel"
    private let process: OwnProcess

    init(layout: ServedLayout, eventLoops: Int) throws {
        process = try OwnProcess(["server", "--store", layout.directory, "--event-loops", "\(eventLoops)"])
    }

    var port: Int { process.port }
    var processes: [Int32] { [process.identifier] }
    func blobPath(_ layout: ServedLayout) -> String { layout.layerPath }
    func manifestPath(_ layout: ServedLayout) -> String { layout.manifestPath }
    func stop() { process.stop() }
}

/// Debian's nginx with sendfile and an open file cache, serving the same files by their paths.
final class NginxServer: RivalServer {
    let name = "nginx"
    let port: Int
    private let process = Process()
    private let prefix: String

    init(layout: ServedLayout, workers: Int) throws {
        let binary = try Tool.find("nginx", package: "nginx-light")
        prefix = NSTemporaryDirectory() + "spegel-benchmark-nginx-\(UUID().uuidString)"
        for name in ["body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            try FileManager.default.createDirectory(atPath: "\(prefix)/\(name)", withIntermediateDirectories: true)
        }
        port = try Self.freePort()
        let text = """
            daemon off;
            worker_processes \(workers);
            pid \(prefix)/pid;
            error_log \(prefix)/error.log;
            worker_rlimit_nofile 16384;
            events { worker_connections 4096; }
            http {
                access_log off;
                sendfile on;
                tcp_nopush on;
                tcp_nodelay on;
                keepalive_requests 1000000000;
                keepalive_timeout 600s;
                open_file_cache max=1000 inactive=60s;
                default_type application/octet-stream;
                client_body_temp_path \(prefix)/body;
                proxy_temp_path \(prefix)/proxy;
                fastcgi_temp_path \(prefix)/fastcgi;
                uwsgi_temp_path \(prefix)/uwsgi;
                scgi_temp_path \(prefix)/scgi;
                server {
                    listen 127.0.0.1:\(port) backlog=4096;
                    root \(layout.directory);
                    add_header Docker-Content-Digest $uri;
                    add_header OCI-Namespace docker.io;
                }
            }
            """
        try text.write(toFile: "\(prefix)/nginx.conf", atomically: true, encoding: .utf8)
        process.executableURL = URL(fileURLWithPath: binary)
        // The user the files belong to, so that no permission is missing.
        process.arguments = [
            "-p", prefix, "-c", "\(prefix)/nginx.conf", "-e", "\(prefix)/error.log", "-g", "user \(NSUserName());",
        ]
        try process.run()
        for _ in 0..<500 {
            if (try? ClientSocket(port: port)) != nil { return }
            guard process.isRunning else { break }
            usleep(10_000)
        }
        throw BenchmarkError("nginx does not start: \(Machine.file("\(prefix)/error.log"))")
    }

    var processes: [Int32] { ProcessUsage.children(of: process.processIdentifier) }
    func blobPath(_ layout: ServedLayout) -> String { layout.filePath(layout.layer) }
    func manifestPath(_ layout: ServedLayout) -> String { layout.filePath(layout.manifest) }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        try? FileManager.default.removeItem(atPath: prefix)
    }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 ? getsockname(descriptor, $0, &length) : -1
            }
        }
        guard status == 0 else { throw BenchmarkError("no port is free") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
