import ArgumentParser

/// What hostile machines do in a cluster. Each has an address of its own, from which it reaches every node.
enum Attack: String, CaseIterable, ExpressibleByArgument, Sendable {
    case none
    case identities
    case absent
    case impostor
    case liar
    case oversize
    case trickle
    case tags
    case connections
    case silent
    case burst
    case idleHTTP = "idle-http"

    var title: String {
        switch self {
        case .none: "nothing, for comparison"
        case .identities: "many identities, which answer searches with each other and keep no record"
        case .absent: "announces all content first, and answers 404"
        case .impostor: "says that the honest nodes are at its own address, and answers 404"
        case .liar: "announces all content, and sends wrong bytes"
        case .oversize: "announces all content, and sends it without end"
        case .trickle: "announces all content, and sends the right bytes at 4 kB/s"
        case .tags: "announces all tags with content of its own"
        case .connections: "512 connections to each router, in use"
        case .silent: "300 connections to each router, on which it says nothing"
        case .burst: "sends records to each router as fast as it takes them"
        case .idleHTTP: "17,500 idle connections to the registry of one node"
        }
    }

    /// Identities of one machine.
    func identities(quick: Bool) -> Int {
        switch self {
        case .identities: quick ? 12 : 50
        case .connections: 512
        case .none, .silent, .idleHTTP: 0
        case .absent, .impostor, .liar, .oversize, .trickle, .tags: 3
        case .burst: 1
        }
    }

    /// Whether wrong tags are what it wins at most: who has more addresses than a tag has honest providers says what it stands for.
    var mayWinTags: Bool { self == .tags }
}
