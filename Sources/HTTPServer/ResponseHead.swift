import NIOCore
import NIOHTTP1
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The head of a response. Every response has a `Content-Length`; chunked bodies are never sent.
public struct ResponseHead: Sendable {
    /// The status.
    public var status: HTTPResponseStatus
    /// Length of the body in bytes, also when none is sent because the request was HEAD.
    public var contentLength: Int64
    /// `Content-Type`; left out when nil.
    public var contentType: String?
    /// `Docker-Content-Digest` and `ETag`.
    public var digest: Digest?
    /// `OCI-Namespace`: the registry the content is served for.
    public var namespace: String?
    /// Whether to send `Accept-Ranges: bytes`.
    public var acceptsRanges = false
    /// `Content-Range`; left out when nil.
    public var contentRange: ContentRange?
    /// Further header fields. Characters that could end a field are replaced by blanks when they are sent.
    public var fields: [(name: String, value: String)] = []

    /// A head with the fields every response has.
    public init(_ status: HTTPResponseStatus, contentLength: Int64, contentType: String? = nil) {
        self.status = status
        self.contentLength = contentLength
        self.contentType = contentType
    }
}

extension ResponseHead {
    /// The `Connection` field (RFC 9110 §7.6.1).
    enum ConnectionField {
        /// None: HTTP/1.1 keeps the connection by default.
        case implied
        /// HTTP/1.0 closes the connection by default.
        case keepAlive
        case close
    }

    /// Writes the head in the form of RFC 9112 §2.1, with the empty line that ends it.
    func serialize(into buffer: inout ByteBuffer, connection: ConnectionField, date: String) {
        buffer.writeStaticString("HTTP/1.1 ")
        switch status {
        case .ok: buffer.writeStaticString("200 OK\r\n")
        case .partialContent: buffer.writeStaticString("206 Partial Content\r\n")
        default:
            buffer.writeInteger(ascii: Int64(status.code))
            buffer.writeStaticString(" ")
            buffer.writeFieldValue(status.reasonPhrase)
            buffer.writeStaticString("\r\n")
        }
        buffer.writeStaticString("Date: ")
        buffer.writeString(date)
        // RFC 9110 §8.6: no Content-Length with 204; with 304 it would be that of the 200 response.
        if status != .noContent {
            buffer.writeStaticString("\r\nContent-Length: ")
            buffer.writeInteger(ascii: contentLength)
        }
        if let contentType {
            buffer.writeStaticString("\r\nContent-Type: ")
            buffer.writeFieldValue(contentType)
        }
        if let digest {
            let text = digest.description
            buffer.writeStaticString("\r\nDocker-Content-Digest: ")
            buffer.writeString(text)
            buffer.writeStaticString("\r\nETag: \"")
            buffer.writeString(text)
            buffer.writeStaticString("\"")
        }
        if let namespace {
            buffer.writeStaticString("\r\nOCI-Namespace: ")
            buffer.writeFieldValue(namespace)
        }
        if acceptsRanges { buffer.writeStaticString("\r\nAccept-Ranges: bytes") }
        if let contentRange {
            buffer.writeStaticString("\r\nContent-Range: ")
            buffer.writeString(contentRange.description)
        }
        for field in fields {
            buffer.writeStaticString("\r\n")
            buffer.writeFieldValue(field.name)
            buffer.writeStaticString(": ")
            buffer.writeFieldValue(field.value)
        }
        switch connection {
        case .implied: buffer.writeStaticString("\r\n\r\n")
        case .keepAlive: buffer.writeStaticString("\r\nConnection: keep-alive\r\n\r\n")
        case .close: buffer.writeStaticString("\r\nConnection: close\r\n\r\n")
        }
    }
}

extension ByteBuffer {
    /// Writes a number in decimal digits without making a string first.
    fileprivate mutating func writeInteger(ascii number: Int64) {
        guard number > 0 else {
            writeStaticString("0")
            return
        }
        var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
        var rest = number
        withUnsafeMutableBytes(of: &digits) { raw in
            var position = raw.count
            while rest > 0 {
                position -= 1
                raw[position] = UInt8(truncatingIfNeeded: rest % 10) &+ 0x30
                rest /= 10
            }
            _ = writeBytes(UnsafeRawBufferPointer(raw)[position...])
        }
    }

    /// Writes text so that it cannot end the field it stands in.
    fileprivate mutating func writeFieldValue(_ text: String) {
        let start = writerIndex
        let length = writeString(text)
        withUnsafeMutableReadableBytes { raw in
            let offset = raw.count - length
            for position in offset..<raw.count where raw[position] < 0x20 && raw[position] != 0x09 {
                raw[position] = 0x20
            }
        }
        assert(writerIndex == start + length)
    }
}

/// The value of the `Date` field (RFC 9110 §5.6.7), formatted once a second and event loop.
struct HTTPDate {
    private var text = ""
    private var madeAt = NIODeadline.uptimeNanoseconds(0)

    /// The date, at most one second old.
    mutating func text(now: NIODeadline) -> String {
        if text.isEmpty || now - madeAt >= .seconds(1) {
            text = Self.format(secondsSince1970: time(nil))
            madeAt = now
        }
        return text
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    static func format(secondsSince1970: Int) -> String {
        var seconds = time_t(secondsSince1970)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let day = days[Int(parts.tm_wday) % 7]
        let month = months[Int(parts.tm_mon) % 12]
        return "\(day), \(two(parts.tm_mday)) \(month) \(1900 + Int(parts.tm_year)) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) GMT"
    }
}
