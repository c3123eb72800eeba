/// The addresses behind a DNS name, usually a headless service that lists all nodes of the cluster.
///
/// All nodes pick the numerically lowest addresses, so that nodes that start at the same time meet at the same peers.
/// Ports and peer IDs are not in DNS: the port is the node's own, the ID is learnt on connecting.
public struct DNSBootstrapSource: BootstrapSource {
    /// Addresses taken of each family.
    public static let addressesPerFamily = 3

    /// The name looked up.
    public let domain: String
    /// The system's resolver, but for tests.
    var lookUp: @Sendable (_ name: String, _ family: AddressFamily) async throws -> [IPAddress] = {
        try await NameResolver.addresses(of: $0, family: $1)
    }

    /// Makes a source for `domain`.
    public init(domain: String) {
        self.domain = domain
    }

    /// The lowest addresses of each family.
    ///
    /// - Throws: ``BootstrapError`` when neither family can be looked up; one alone is enough.
    public func candidates() async throws -> [BootstrapCandidate] {
        async let v4 = attempt(.v4)
        async let v6 = attempt(.v6)
        switch (await v4, await v6) {
        case (.failure(let error), .failure): throw error
        case (let first, let second):
            let found = [first, second].flatMap { (try? $0.get())?.prefix(Self.addressesPerFamily) ?? [] }
            return found.compactMap { Multiaddr(onlyIP: $0) }.map { BootstrapCandidate(id: nil, addresses: [$0]) }
        }
    }

    private func attempt(_ family: AddressFamily) async -> Result<[IPAddress], any Error> {
        do {
            return .success(try await lookUp(domain, family))
        } catch {
            return .failure(error)
        }
    }
}
