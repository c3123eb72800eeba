import Dispatch
import OCIDistribution

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A change of a layout's files, reported by a watcher.
enum LayoutChange: Sendable, Hashable {
    /// `index.json` was written, replaced or removed.
    case index
    /// A directory was added or removed.
    case structure
    /// A blob got its name by a rename, so it is complete.
    case blobRenamed(Digest)
    /// A blob is being written in place.
    case blobChanging(Digest)
    /// A blob that was open for writing was closed.
    case blobWritten(Digest)
    /// A blob was removed or renamed away.
    case blobGone(Digest)
    /// A quarantine record was written or removed.
    case quarantine(Digest)
    /// Changes were lost: everything must be rescanned.
    case overflow
    /// The layout's root directory was removed, renamed or unmounted.
    case rootGone
}

/// The role of a directory in a layout.
enum WatchedDirectory: Sendable, Hashable {
    case root
    case blobs
    case algorithm(DigestAlgorithm)
    case privateFiles
    case quarantine
}

/// Reports changes of a layout by other processes. Used on one queue only.
protocol LayoutWatcher: AnyObject {
    /// Watches a directory; has no effect when it is watched already.
    func watch(_ directory: Directory, as role: WatchedDirectory) throws(ContentStoreError)
    /// Ends all watching.
    func stop()
}

#if canImport(Glibc) || canImport(Musl)

    /// Reports changes with inotify(7), to a handler on the given queue.
    final class InotifyWatcher: LayoutWatcher {
        private let descriptor: CInt
        private let source: any DispatchSourceRead
        private let roles: RoleTable

        /// The directory of each watch. Used on the queue only.
        private final class RoleTable: @unchecked Sendable {
            var roles: [CInt: WatchedDirectory] = [:]
        }

        private static let eventMask = UInt32(
            IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF
                | IN_MOVE_SELF | IN_ONLYDIR)

        /// Starts without anything to watch.
        ///
        /// - Throws: ``ContentStoreError`` when the limit of inotify instances is reached.
        init(queue: DispatchQueue, handler: @escaping @Sendable ([LayoutChange]) -> Void) throws(ContentStoreError) {
            let descriptor = inotify_init1(CInt(IN_CLOEXEC | IN_NONBLOCK))
            guard descriptor >= 0 else { throw ContentStoreError(errno: errno, "inotify_init1") }
            let roles = RoleTable()
            let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
            source.setEventHandler {
                let changes = Self.readChanges(descriptor, roles)
                if !changes.isEmpty { handler(changes) }
            }
            source.setCancelHandler { close(descriptor) }
            source.activate()
            self.descriptor = descriptor
            self.source = source
            self.roles = roles
        }

        deinit { source.cancel() }

        func stop() { source.cancel() }

        func watch(_ directory: Directory, as role: WatchedDirectory) throws(ContentStoreError) {
            // By its descriptor, so that exactly the opened directory is watched; by its path where /proc is missing.
            var watch = inotify_add_watch(descriptor, "/proc/self/fd/\(directory.descriptor)", Self.eventMask)
            if watch < 0, errno == ENOENT { watch = inotify_add_watch(descriptor, directory.path, Self.eventMask) }
            guard watch >= 0 else {
                if errno == ENOSPC {
                    throw .unavailable("no inotify watch is left; raise fs.inotify.max_user_watches")
                }
                throw ContentStoreError(errno: errno, "watching of \(directory.path)")
            }
            roles.roles[watch] = role
        }

        private static func readChanges(_ descriptor: CInt, _ table: RoleTable) -> [LayoutChange] {
            var changes: [LayoutChange] = []
            withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 8) { buffer in
                // Bounded, so that other work of the queue is not delayed.
                for _ in 0..<16 {
                    let count = read(descriptor, buffer.baseAddress, buffer.count)
                    guard count > 0 else { return }
                    parse(UnsafeRawBufferPointer(rebasing: buffer[..<count]), table, &changes)
                }
            }
            return changes
        }

        private static func parse(
            _ bytes: UnsafeRawBufferPointer, _ table: RoleTable, _ changes: inout [LayoutChange]
        ) {
            let headerSize = MemoryLayout<inotify_event>.size
            var position = 0
            while position + headerSize <= bytes.count {
                let event = bytes.loadUnaligned(fromByteOffset: position, as: inotify_event.self)
                let nameStart = position + headerSize
                let nameEnd = min(bytes.count, nameStart + Int(event.len))
                let name = String(decoding: bytes[nameStart..<nameEnd].prefix { $0 != 0 }, as: UTF8.self)
                position = nameEnd
                let mask = CInt(bitPattern: event.mask)
                if mask & IN_Q_OVERFLOW != 0 {
                    changes.append(.overflow)
                    continue
                }
                guard let role = table.roles[event.wd] else { continue }
                if mask & IN_IGNORED != 0 { table.roles[event.wd] = nil }
                if let change = change(in: role, mask: mask, name: name), changes.last != change {
                    changes.append(change)
                }
            }
        }

        private static func change(in role: WatchedDirectory, mask: CInt, name: String) -> LayoutChange? {
            if mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED) != 0 {
                return role == .root ? .rootGone : .structure
            }
            let isNaming = mask & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) != 0
            switch role {
            case .root:
                if name == LayoutIndex.fileName {
                    // Some programs write it in place: it is complete when it is closed.
                    return mask & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) != 0 ? .index : nil
                }
                return isNaming && (name == LayoutRoot.blobsName || name == LayoutRoot.privateName) ? .structure : nil
            case .blobs:
                return isNaming && DigestAlgorithm(rawValue: name) != nil ? .structure : nil
            case .privateFiles:
                return isNaming && name == LayoutRoot.quarantineName ? .structure : nil
            case .quarantine:
                return Quarantine.digest(ofRecord: name).map { .quarantine($0) }
            case .algorithm(let algorithm):
                guard let digest = try? Digest(parsing: "\(algorithm.rawValue):\(name)") else { return nil }
                if mask & IN_MOVED_TO != 0 { return .blobRenamed(digest) }
                if mask & (IN_DELETE | IN_MOVED_FROM) != 0 { return .blobGone(digest) }
                if mask & IN_CLOSE_WRITE != 0 { return .blobWritten(digest) }
                return .blobChanging(digest)
            }
        }
    }

#endif
