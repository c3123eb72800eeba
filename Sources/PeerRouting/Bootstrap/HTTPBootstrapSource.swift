import AsyncHTTPClient
import NIOCore
import NIOHTTP1
import ServiceSupport

/// A list of nodes fetched from a URL.
public struct HTTPBootstrapSource: BootstrapSource {
    /// What is fetched.
    public let url: String
    /// The directory with `ca.crt`, `tls.crt` and `tls.key` for mutual TLS.
    public let certificateDirectory: String?
    /// For connecting; longer in tests.
    var connectTimeout: TimeAmount = .seconds(5)
    /// For all of it; longer in tests.
    var timeout: TimeAmount = .seconds(10)

    /// Makes a source.
    public init(url: String, certificateDirectory: String? = nil) {
        self.url = url
        self.certificateDirectory = certificateDirectory
    }

    /// Fetches the list: at most 64 KiB of it are read, within 10 s, and its first three entries used.
    ///
    /// - Throws: ``BootstrapError`` naming the URL.
    public func candidates() async throws -> [BootstrapCandidate] {
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = connectTimeout
        // A failed connection is reported as what it is, at once: the next round is the bootstrapper's to begin.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.redirectConfiguration = .follow(max: 3, allowCycles: false)
        if let certificateDirectory {
            configuration.tlsConfiguration =
                try BootstrapCertificates(directory: certificateDirectory).clientConfiguration()
        }
        // A client for each round: rounds are rare, and certificates may have been renewed.
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        let result: Result<[BootstrapCandidate], any Error>
        do {
            let response = try await client.execute(HTTPClientRequest(url: url), timeout: timeout)
            guard response.status == .ok else { throw BootstrapError("status \(response.status.code)") }
            let body = try await response.body.collect(upTo: BootstrapRecord.maximumLength)
            result = .success(try BootstrapRecord.candidates(in: Array(body.readableBytesView)))
        } catch {
            result = .failure(BootstrapError("bootstrap from \(url): \(reason(error))"))
        }
        try? await client.shutdown()
        return try result.get()
    }

    private func reason(_ error: any Error) -> String {
        (error as? HTTPClientError).map { $0.shortDescription.lowercased() } ?? plainReason(error)
    }
}
