#if Containerd
    import NIOCore

    /// One record that the kernel writes to an inotify descriptor (inotify(7)).
    struct InotifyEvent: Sendable, Hashable {
        /// The watch it belongs to; -1 for an overflow.
        var watch: Int32
        /// What happened.
        var mask: UInt32
        /// The name of the file in the watched directory; empty for the directory itself.
        var name: String

        /// Takes the next record out of what was read. The kernel never splits a record between reads; a rest that is no
        /// whole record ends the reading.
        init?(readingFrom bytes: inout ByteBuffer) {
            guard bytes.readableBytes >= 16,
                let watch: Int32 = bytes.readInteger(endianness: .host),
                let mask: UInt32 = bytes.readInteger(endianness: .host),
                let _: UInt32 = bytes.readInteger(endianness: .host),
                let length: UInt32 = bytes.readInteger(endianness: .host),
                let name = bytes.readSlice(length: Int(length))
            else { return nil }
            self.watch = watch
            self.mask = mask
            // Padded with zeros.
            self.name = String(decoding: name.readableBytesView.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    extension Endianness {
        fileprivate static var host: Endianness { Endianness(hostOrder: ()) }
        private init(hostOrder: Void) { self = UInt16(1).littleEndian == 1 ? .little : .big }
    }
#endif
