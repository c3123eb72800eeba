import NIOCore
import NIOPosix

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// An open, regular file that holds content.
///
/// It owns its file descriptor, which is closed when the object is released. A ``fileRegion(_:)`` does not keep it
/// alive: hold the `ContentFile` until the write of the region is done. The file may have been deleted or replaced in
/// the store meanwhile; the opened one stays readable.
public final class ContentFile: Sendable {
    /// The size in bytes the file had when it was opened.
    public let size: Int64
    private let descriptor: CInt
    private let handle: NIOFileHandle

    /// Takes over an open file descriptor.
    ///
    /// - Parameters:
    ///   - descriptor: open for reading; closed by this object from now on.
    ///   - size: the file's size in bytes.
    public init(takingOwnershipOf descriptor: CInt, size: Int64) {
        self.descriptor = descriptor
        self.size = size
        self.handle = NIOFileHandle(_deprecatedTakingOwnershipOfDescriptor: descriptor)
    }

    deinit {
        // The handle refuses to close while an event loop is inside one sendfile(2) on it, which does not last.
        for _ in 0..<100_000 {
            do {
                try handle.close()
                return
            } catch let error as IOError where error.errnoCode == EBUSY {
                sched_yield()
            } catch {
                return
            }
        }
    }

    /// The region of the file to hand to a NIO channel, which sends it with `sendfile(2)` where it can.
    ///
    /// Only one write of one file may be under way at a time; open the content again for another.
    ///
    /// - Parameter range: bytes of the file, clamped to `0..<size`.
    public func fileRegion(_ range: Range<Int64>) -> FileRegion {
        let range = range.clamped(to: 0..<size)
        return FileRegion(
            fileHandle: handle, readerIndex: Int(range.lowerBound), endIndex: Int(range.upperBound))
    }

    /// Reads bytes, blocking the calling thread. It does not move any file position, so it may be called concurrently.
    ///
    /// - Parameters:
    ///   - offset: the position in bytes of the first byte.
    ///   - count: how many bytes to read at most.
    ///   - allocator: makes the buffer.
    /// - Returns: `count` bytes, or fewer only at the end of the file.
    /// - Throws: ``ContentStoreError/io(_:errno:)``.
    public func read(
        at offset: Int64, count: Int, allocator: ByteBufferAllocator = ByteBufferAllocator()
    ) throws(ContentStoreError) -> ByteBuffer {
        var buffer = allocator.buffer(capacity: max(0, count))
        while buffer.readableBytes < count {
            let position = offset + Int64(buffer.readableBytes)
            let wanted = count - buffer.readableBytes
            let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { space in
                max(0, pread(descriptor, space.baseAddress, wanted, off_t(position)))
            }
            if got > 0 { continue }
            // The closure cannot return -1 as a count of bytes written, so ask again what kind of nothing it was.
            var probe: UInt8 = 0
            let again = pread(descriptor, &probe, 1, off_t(position))
            if again == 1 { continue }
            if again == 0 { break }
            if errno == EINTR { continue }
            throw .io("read of a content file", errno: errno)
        }
        return buffer
    }
}
