import NIOCore

/// How the network between simulated nodes behaves, and what the nodes are like.
package struct SimulationConfiguration: Sendable {
    /// Decides everything that is random. The same seed gives the same run, event for event.
    package var seed: UInt64 = 1
    /// One way between two nodes, at least.
    package var latency: TimeAmount = .microseconds(150)
    /// Mean of the exponentially distributed part of the latency.
    package var jitter: TimeAmount = .microseconds(250)
    /// Share of messages that are lost once and arrive after TCP has sent them again, 200 ms later.
    package var loss = 0.0
    /// Share of requests that get no answer although the node is there.
    package var failure = 0.0
    /// Share of deaths that nobody is told of: dials time out, and connections break only when their keepalive does.
    /// In the other deaths the machine lives on and refuses connections.
    package var silentDeaths = 0.5
    /// Share of nodes that lie: they name peers that do not exist and providers that have nothing.
    package var liars = 0.0
    /// Connections a node keeps; those used least lately are closed.
    package var connections = 512
    /// When nothing answers: a dial, and a request on a connection.
    package var dialTimeout: TimeAmount = .seconds(5)
    package var requestTimeout: TimeAmount = .seconds(10)
    /// The interval of announcements; records are valid for 19/15 of it.
    package var reprovideInterval: TimeAmount = .minutes(15)

    package init() {}

    var node: KademliaConfiguration {
        var node = KademliaConfiguration()
        node.provide.interval = reprovideInterval
        node.store.validity = .nanoseconds(reprovideInterval.nanoseconds / 15 * 19)
        return node
    }
}
