import ContentStore
import NIOCore

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Sends a range of a file piece by piece with `sendfile(2)`, so that back-pressure, progress and a file that shrinks
/// are seen between the pieces.
final class FileTransfer {
    private let file: ContentFile
    private let pieceBytes: Int64
    private var position: Int64
    private let end: Int64

    init(file: ContentFile, range: Range<Int64>, pieceBytes: Int) {
        self.file = file
        self.pieceBytes = Int64(pieceBytes)
        position = range.lowerBound
        end = range.upperBound
    }

    var remaining: Int64 { end - position }

    /// The next piece to send, or nil after the last one.
    func nextPiece() -> FileRegion? {
        guard position < end else { return nil }
        let next = min(end, position + pieceBytes)
        let piece = file.fileRegion(position..<next)
        position = next
        return piece
    }

    /// Whether the file still reaches to the end of the range. One that does not would make `sendfile(2)` return zero
    /// for ever.
    var isIntact: Bool {
        let size = try? file.fileRegion(0..<0).fileHandle.withUnsafeFileDescriptor { descriptor in
            var status = stat()
            return fstat(descriptor, &status) == 0 ? Int64(status.st_size) : -1
        }
        return (size ?? -1) >= end
    }
}
