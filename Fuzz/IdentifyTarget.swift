@testable import Libp2p

/// What a peer tells about itself: bounded, whatever it sends; and what is kept can be sent on.
func fuzzIdentify(_ input: UnsafeBufferPointer<UInt8>) {
    var message = IdentifyMessage()
    guard (try? message.merge(parsing: Array(input), maximumAddresses: 10, maximumProtocols: 10)) != nil else { return }
    require(message.listenAddresses.count <= 10 && message.protocols.count <= 10, "lists without bounds")
    // A replacement character takes three bytes where one could not be read.
    for text in [message.agentVersion, message.protocolVersion] {
        require(text.utf8.count <= 3 * IdentifyMessage.maximumTextLength, "a text of \(text.utf8.count) bytes")
    }
    let peer = try? NodeIdentity(seed: [UInt8](repeating: 0x11, count: 32)).peerID
    guard let peer else { fail("no identity") }
    for address in message.usableAddresses(of: peer, remote: .v4(0x0a00_0001), allowLoopback: false) {
        guard let endpoint = address.tcpEndpoint else { fail("\(address) cannot be dialled") }
        require(endpoint.port != 0 && !endpoint.address.isLoopback, "\(address) is of no use")
    }
    var again = IdentifyMessage()
    try? again.merge(parsing: message.encoded, maximumAddresses: 10, maximumProtocols: 10)
    require(again.listenAddresses == message.listenAddresses, "the addresses differ")
    require(again.protocols == message.protocols, "the protocols differ")
    require(again.publicKey == message.publicKey, "the key differs")
}
