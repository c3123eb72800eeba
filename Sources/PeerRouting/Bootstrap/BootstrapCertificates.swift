import NIOSSL

/// The files `ca.crt`, `tls.crt` and `tls.key` of a directory, for mutual TLS between nodes that bootstrap over HTTP.
struct BootstrapCertificates: Sendable {
    let directory: String

    private func path(_ name: String) -> String { directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)" }

    /// For fetching records: the server must be signed by the CA, and we show our certificate.
    ///
    /// - Throws: ``BootstrapError`` naming the file that cannot be used.
    func clientConfiguration() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(try certificates("ca.crt"))
        configuration.certificateChain = try certificates("tls.crt").map { .certificate($0) }
        configuration.privateKey = .privateKey(try key())
        return configuration
    }

    /// For serving our record: clients must be signed by the CA.
    ///
    /// - Throws: ``BootstrapError`` naming the file that cannot be used.
    func serverConfiguration() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try certificates("tls.crt").map { .certificate($0) }, privateKey: .privateKey(try key()))
        configuration.trustRoots = .certificates(try certificates("ca.crt"))
        configuration.certificateVerification = .noHostnameVerification
        return configuration
    }

    private func certificates(_ name: String) throws -> [NIOSSLCertificate] {
        do {
            return try NIOSSLCertificate.fromPEMFile(path(name))
        } catch {
            throw BootstrapError("certificate \(path(name)): \(error)")
        }
    }

    private func key() throws -> NIOSSLPrivateKey {
        do {
            return try NIOSSLPrivateKey(file: path("tls.key"), format: .pem)
        } catch {
            throw BootstrapError("private key \(path("tls.key")): \(error)")
        }
    }
}
