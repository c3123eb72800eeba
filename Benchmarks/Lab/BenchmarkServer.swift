import Foundation

/// A server in a process of its own that is measured.
protocol BenchmarkServer {
    var name: String { get }
    /// The IPv4 address it listens on.
    var host: String { get }
    var port: Int { get }
    /// The processes that do the work.
    var processes: [Int32] { get }
    /// Where it serves content, and which of the query a registry of several upstreams needs.
    func path(_ content: BenchmarkImages.Content) -> String
    func stop()
}

extension BenchmarkServer {
    var host: String { "127.0.0.1" }
    func path(_ content: BenchmarkImages.Content) -> String { content.registryPath }
}

/// This project's server over an OCI image layout: this program run again with a hidden subcommand.
final class OwnServer: BenchmarkServer {
    let name = "spegel, OCI layout"
    private let process: OwnProcess

    init(_ images: BenchmarkImages, eventLoops: Int) throws {
        process = try OwnProcess(["server", "--store", images.directory, "--event-loops", "\(eventLoops)"])
    }

    var port: Int { process.port }
    var processes: [Int32] { [process.identifier] }
    func stop() { process.stop() }
}

/// Debian's nginx with sendfile and an open file cache: it serves the same files by their paths, or is a caching proxy of a
/// registry.
final class NginxServer: BenchmarkServer {
    var name: String { upstream == nil ? "nginx" : "nginx caching proxy" }
    let port: Int
    private let process = Process()
    private let prefix: String
    private let upstream: Int?

    /// - Parameter upstream: the port of the registry to be a proxy of; nil to serve files.
    init(_ images: BenchmarkImages, workers: Int, upstream: Int? = nil) throws {
        self.upstream = upstream
        let binary = try Tool.find("nginx", package: "nginx-light")
        prefix = NSTemporaryDirectory() + "spegel-benchmark-nginx-\(UUID().uuidString)"
        for name in ["body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            try FileManager.default.createDirectory(atPath: "\(prefix)/\(name)", withIntermediateDirectories: true)
        }
        port = try FreePort.any()
        let content =
            if let upstream {
                "location / { proxy_pass http://127.0.0.1:\(upstream); proxy_cache all; proxy_cache_valid 200 1h; proxy_cache_lock on;"
                    + " proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k; }"
            } else {
                "root \(images.directory); add_header Docker-Content-Digest $uri; add_header OCI-Namespace docker.io;"
            }
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
                proxy_cache_path \(prefix)/cache keys_zone=all:10m max_size=4g;
                client_body_temp_path \(prefix)/body;
                proxy_temp_path \(prefix)/proxy;
                fastcgi_temp_path \(prefix)/fastcgi;
                uwsgi_temp_path \(prefix)/uwsgi;
                scgi_temp_path \(prefix)/scgi;
                server {
                    listen 127.0.0.1:\(port) backlog=4096;
                    \(content)
                }
            }
            """
        try text.write(toFile: "\(prefix)/nginx.conf", atomically: true, encoding: .utf8)
        process.executableURL = URL(fileURLWithPath: binary)
        // The user the files belong to, so that no permission is missing.
        process.arguments = [
            "-p", prefix, "-c", "\(prefix)/nginx.conf", "-e", "\(prefix)/error.log", "-g", "user \(NSUserName());",
        ]
        try process.runWithSignals()
        for _ in 0..<500 {
            if (try? ClientSocket(port: port)) != nil { return }
            guard process.isRunning else { break }
            usleep(10_000)
        }
        throw BenchmarkError("nginx does not start: \(Machine.file("\(prefix)/error.log"))")
    }

    var processes: [Int32] { ProcessUsage.children(of: process.processIdentifier) }
    func path(_ content: BenchmarkImages.Content) -> String {
        upstream == nil ? content.filePath : content.registryPath
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        try? FileManager.default.removeItem(atPath: prefix)
    }
}

/// A port of the loopback interface.
enum FreePort {
    /// One that nothing listens on now.
    static func any() throws -> Int {
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
