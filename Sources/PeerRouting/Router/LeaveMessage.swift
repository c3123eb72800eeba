/// The goodbye of a node that stops.
///
/// Kademlia cannot take a provider record back, so a node that stops would be named, and dialled in vain, until its
/// records expire. Nodes of this implementation therefore speak one more protocol, listed in identify. Go nodes do not
/// know it; they are sent an identify push that no longer lists Kademlia, on which they drop the node from their tables.
/// The message is empty: who leaves is known from the connection, nobody can say goodbye for another.
enum LeaveMessage {
    static let protocolID = "/spegel/leave/1.0.0"
}
