import NIOCore
import NIOPosix

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An error of a connection in the words of the system, such as `Connection refused`: the descriptions of SwiftNIO's errors name
/// the call inside the library and the number of the error.
///
/// An error of another kind is described as it describes itself.
package func plainReason(_ error: any Error) -> String {
    switch error {
    case let error as IOError: systemReason(error.errnoCode)
    case let error as NIOConnectionError: connectionReason(error)
    case let error as SocketAddressError.UnknownHost: "the name \(error.host) has no address"
    case ChannelError.connectTimeout: "no connection within the time limit"
    case ChannelError.ioOnClosedChannel, ChannelError.alreadyClosed, ChannelError.eof, ChannelError.inputClosed:
        "the connection was closed"
    default: "\(error)"
    }
}

private func systemReason(_ number: CInt) -> String { String(cString: strerror(number)) }

private func connectionReason(_ error: NIOConnectionError) -> String {
    // Several addresses mostly fail alike: each reason is said once.
    var reasons: [String] = []
    for failure in error.connectionErrors {
        let reason = plainReason(failure.error)
        if !reasons.contains(reason) { reasons.append(reason) }
    }
    if reasons.isEmpty, let failure = error.dnsAError ?? error.dnsAAAAError { reasons = [plainReason(failure)] }
    guard !reasons.isEmpty else { return "no connection to \(error.host):\(error.port)" }
    return reasons.joined(separator: ", ")
}
