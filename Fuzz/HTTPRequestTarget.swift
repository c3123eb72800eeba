import NIOCore
import NIOHTTP1

@testable import HTTPServer

/// The heads of HTTP requests.
func fuzzHTTPRequest(_ input: UnsafeBufferPointer<UInt8>) {
    requireSameInPieces(input, "requests") { pieces in
        var limits = HTTPLimits()
        limits.headBytes = 1024
        limits.requestLineBytes = 256
        limits.headFields = 16
        limits = limits.clamped()
        var parser = RequestParser(limits: limits)
        var buffer = ByteBuffer()
        var log: [String] = []
        do throws(RequestRejection) {
            for var piece in pieces {
                buffer.writeBuffer(&piece)
                while let head = try parser.next(from: &buffer) {
                    require(head.target.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f }, "target \(head.target)")
                    require(head.target.utf8.count <= limits.requestLineBytes, "too long a target")
                    require(head.fields.count <= limits.headFields, "\(head.fields.count) fields")
                    if case .length(let length) = head.body { require(length >= 0, "a body of \(length) bytes") }
                    log.append("\(head.method) \(head.target) \(head.version) \(head.keepAlive) \(head.body)")
                }
                require(buffer.readableBytes <= limits.headBytes, "\(buffer.readableBytes) bytes are held")
            }
        } catch {
            require((400..<600).contains(Int(error.status.code)), "refused with \(error.status)")
            log.append("\(error)")
        }
        return log
    }
}
