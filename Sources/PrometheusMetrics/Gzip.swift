import CZlib

/// Compresses whole bodies for responses with `Content-Encoding: gzip` (RFC 1952).
package enum Gzip {
    /// The compressed form; nil if the library fails, then the bytes are to be sent as they are.
    package static func compress(_ bytes: [UInt8]) -> [UInt8]? {
        var stream = z_stream()
        // 16 more than the largest window: a gzip header. Level 1 is three times as fast as the default, for text of a
        // few hundred kilobytes that is 5 % larger.
        guard
            deflateInit2_(
                &stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
        defer { deflateEnd(&stream) }
        guard bytes.count <= UInt32.max else { return nil }
        var output = [UInt8](repeating: 0, count: Int(deflateBound(&stream, UInt(bytes.count))))
        var input = bytes
        let count = input.withUnsafeMutableBufferPointer { input -> Int? in
            output.withUnsafeMutableBufferPointer { output -> Int? in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(output.count)
                return deflate(&stream, Z_FINISH) == Z_STREAM_END ? Int(stream.total_out) : nil
            }
        }
        guard let count else { return nil }
        output.removeSubrange(count...)
        return output
    }
}

/// What a client accepts, by RFC 9110 §12.5.
package enum ContentNegotiation {
    /// Whether the values of `Accept-Encoding` allow `gzip`.
    package static func acceptsGzip(_ values: [String]) -> Bool {
        var any = false
        for entry in entries(values) {
            if entry.name == "gzip" || entry.name == "x-gzip" { return entry.quality > 0 }
            if entry.name == "*" { any = entry.quality > 0 }
        }
        return any
    }

    /// The form of the metrics that the values of `Accept` prefer: OpenMetrics only if it is asked for by name, in a version
    /// that is written here, and not less than plain text.
    package static func metricsFormat(_ values: [String]) -> PrometheusText.Format {
        var openMetrics = 0.0
        var text = 0.0
        for entry in entries(values) {
            switch entry.name {
            case "application/openmetrics-text":
                if entry.version == nil || entry.version == "1.0.0" { openMetrics = max(openMetrics, entry.quality) }
            case "text/plain": text = max(text, entry.quality)
            default: break
            }
        }
        return openMetrics > 0 && openMetrics >= text ? .openMetrics : .prometheus
    }

    private struct Entry {
        var name: String
        var quality = 1.0
        var version: String?
    }

    private static func entries(_ values: [String]) -> [Entry] {
        values.flatMap { $0.split(separator: ",") }.map { text in
            let parts = text.split(separator: ";").map { part in
                part.lowercased().filter { $0 != " " && $0 != "\t" && $0 != "\"" }
            }
            var entry = Entry(name: parts.first ?? "")
            for part in parts.dropFirst() {
                if part.hasPrefix("q=") { entry.quality = Double(part.dropFirst(2)) ?? 0 }
                if part.hasPrefix("version=") { entry.version = String(part.dropFirst(8)) }
            }
            return entry
        }
    }
}
