import ContentStore
import NIOCore
import NIOPosix
import OCIDistribution

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// What a ``BlobWatcher`` reports.
enum BlobWatcherEvent: Sendable, Hashable {
    /// A file of this name was added; containerd's database may list it a moment later.
    case appeared(Digest)
    /// A file of this name was removed.
    case disappeared(Digest)
    /// Changes may have been missed.
    case missed
    /// The watch has ended, with the reason.
    case ended(String)
}

#if os(Linux)
    /// Watches containerd's directory of blobs with inotify.
    ///
    /// containerd before 2.1 has no event for committed content, and no version has one for what garbage collection removes.
    /// Blobs of other namespaces are reported too, so that a reported blob must be looked up in containerd.
    final class BlobWatcher: Sendable {
        private let channel: any Channel

        private init(channel: any Channel) { self.channel = channel }

        /// Starts a watch.
        ///
        /// - Parameter handle: called on an event loop; `ended` comes last, also after ``stop()``.
        /// - Throws: `IOError`, such as when the limit of inotify instances or watches is reached, or there is no such
        ///   directory.
        static func start(
            _ directory: BlobDirectory, group: any EventLoopGroup,
            handle: @Sendable @escaping (BlobWatcherEvent) -> Void
        ) async throws -> BlobWatcher {
            let descriptor = inotify_init1(CInt(IN_NONBLOCK | IN_CLOEXEC))
            guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "inotify_init1") }
            do {
                // Before anything else, so that no change after the return is missed.
                var watches = BlobWatches(directory: directory, descriptor: descriptor)
                try watches.add()
                let added = watches
                let channel = try await NIOPipeBootstrap(group: group)
                    // A record can be 272 bytes, and a read that is too small for one fails.
                    .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 32 << 10))
                    .channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(
                                BlobWatchHandler(watches: added, handle: handle))
                        }
                    }
                    .takingOwnershipOfDescriptor(input: descriptor).get()
                return BlobWatcher(channel: channel)
            } catch {
                close(descriptor)
                throw error
            }
        }

        /// Ends the watch.
        func stop() { channel.close(promise: nil) }
    }

    /// The watches of the directories that lead to the blobs.
    private struct BlobWatches: Sendable {
        enum Place: Hashable {
            case root
            case blobs
            case algorithm(DigestAlgorithm)
        }

        private static let mask = UInt32(
            IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

        let directory: BlobDirectory
        let descriptor: CInt
        var places: [Int32: Place] = [:]

        /// Watches the directories that exist; one that is watched already keeps its watch.
        ///
        /// - Throws: `IOError` when the root, or another directory that exists, cannot be watched.
        mutating func add() throws {
            try add(.root, directory.path)
            try add(.blobs, directory.path + "/blobs")
            for algorithm in DigestAlgorithm.allCases {
                try add(.algorithm(algorithm), "\(directory.path)/blobs/\(algorithm.rawValue)")
            }
        }

        private mutating func add(_ place: Place, _ path: String) throws {
            let watch = inotify_add_watch(descriptor, path, Self.mask)
            if watch >= 0 {
                places[watch] = place
            } else if errno == ENOSPC {
                throw IOError(
                    errnoCode: ENOSPC, reason: "no inotify watch is left; raise fs.inotify.max_user_watches")
            } else if place == .root || errno != ENOENT {
                throw IOError(errnoCode: errno, reason: "watching of \(path)")
            }
        }
    }

    /// Reads the records.
    private final class BlobWatchHandler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        /// The meaning of a record other than an added or removed blob.
        private enum Meaning {
            case none
            /// A directory was added or removed, or the kernel dropped records.
            case missed
            /// The root directory was renamed or removed.
            case rootGone
        }

        private var watches: BlobWatches
        private let handle: @Sendable (BlobWatcherEvent) -> Void

        init(watches: BlobWatches, handle: @Sendable @escaping (BlobWatcherEvent) -> Void) {
            self.watches = watches
            self.handle = handle
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            var missed = false
            while let event = InotifyEvent(readingFrom: &bytes) {
                switch process(event) {
                case .none: break
                case .missed: missed = true
                case .rootGone: return end("the directory is gone", context)
                }
            }
            guard missed else { return }
            do {
                try watches.add()
                handle(.missed)
            } catch {
                end("\(error)", context)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { end("\(error)", context) }

        func channelInactive(context: ChannelHandlerContext) {
            handle(.ended("the watch was closed"))
            context.fireChannelInactive()
        }

        private func end(_ reason: String, _ context: ChannelHandlerContext) {
            handle(.ended(reason))
            context.close(promise: nil)
        }

        private func process(_ event: InotifyEvent) -> Meaning {
            if event.mask & UInt32(IN_Q_OVERFLOW) != 0 { return .missed }
            guard let place = watches.places[event.watch] else { return .none }
            let isIgnored = event.mask & UInt32(IN_IGNORED) != 0
            if isIgnored { watches.places[event.watch] = nil }
            switch place {
            case .root where event.mask & UInt32(IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF) != 0: return .rootGone
            case _ where isIgnored: return .missed
            case .root: return event.name == "blobs" ? .missed : .none
            case .blobs: return DigestAlgorithm(rawValue: event.name) != nil ? .missed : .none
            case .algorithm(let algorithm):
                guard let digest = Digest("\(algorithm.rawValue):\(event.name)") else { return .none }
                let appeared = event.mask & UInt32(IN_CREATE | IN_MOVED_TO) != 0
                handle(appeared ? .appeared(digest) : .disappeared(digest))
                return .none
            }
        }
    }
#else
    /// Not available on this operating system.
    final class BlobWatcher: Sendable {
        static func start(
            _ directory: BlobDirectory, group: any EventLoopGroup,
            handle: @Sendable @escaping (BlobWatcherEvent) -> Void
        ) async throws -> BlobWatcher {
            throw ContentStoreError.unavailable("directories can only be watched on Linux")
        }

        func stop() {}
    }
#endif

/// One record that the kernel writes to an inotify descriptor (inotify(7)).
struct InotifyEvent: Sendable, Hashable {
    /// The watch descriptor; -1 for an overflow.
    var watch: Int32
    /// The event mask.
    var mask: UInt32
    /// The name of the file in the watched directory; empty for the directory itself.
    var name: String

    /// Reads the next record; nil when no whole record is left. The kernel never splits a record between reads.
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
