import Logging
import NIOConcurrencyHelpers
import NIOCore
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Spare file descriptors of this process, given up when there are no others, so that those who cannot do without get one.
///
/// Who cannot: libdispatch, which runs Swift's tasks, opens a file in `/proc` for each of its threads once a second, and ends
/// the process when that fails; and a connection to containerd that has to be made anew. What can wait (clients, dials to
/// peers, files of the store) takes none while the reserve ``isSpent``.
package final class DescriptorReserve: Sendable {
    /// That of this process, as descriptors are. Does nothing before the first ``watch(on:limit:logger:)``.
    package static let process = DescriptorReserve()
    /// Most spare descriptors; of a limit below 256, a sixteenth.
    package static let size = 16
    /// The pause between two looks at whether there are descriptors.
    static let interval = TimeAmount.milliseconds(100)

    private struct State {
        var watchers = 0
        var spare: [CInt] = []
        /// How many are to be spare.
        var size = 0
        var logger: Logger?
    }

    private let spent = Synchronization.Atomic<Bool>(false)
    private let state = NIOLockedValueBox(State())

    /// Whether nothing that can wait is to take a descriptor.
    package var isSpent: Bool { spent.load(ordering: .relaxed) }

    /// Begins to look after the descriptors, until the returned task is cancelled by ``unwatch(_:)``.
    ///
    /// - Parameter limit: the process's limit of open files.
    package func watch(on eventLoop: any EventLoop, limit: UInt64, logger: Logger) -> RepeatedTask {
        state.withLockedValue { state in
            state.watchers += 1
            state.logger = logger
            guard state.spare.isEmpty else { return }
            state.size = Int(min(UInt64(Self.size), limit / 16))
            state.spare = Self.open(state.size) ?? []
        }
        return eventLoop.scheduleRepeatedTask(initialDelay: Self.interval, delay: Self.interval) { _ in self.look() }
    }

    /// Ends a ``watch(on:limit:logger:)``.
    package func unwatch(_ task: RepeatedTask) {
        task.cancel()
        state.withLockedValue { state in
            state.watchers -= 1
            guard state.watchers == 0 else { return }
            Self.close(state.spare)
            state.spare = []
            spent.store(false, ordering: .relaxed)
        }
    }

    /// A system call has failed because there are no descriptors left (`EMFILE`, `ENFILE`): gives the spare ones up.
    package func noneLeft() {
        let logger = state.withLockedValue { state -> Logger? in
            guard state.watchers > 0, !isSpent else { return nil }
            spent.store(true, ordering: .relaxed)
            Self.close(state.spare)
            state.spare = []
            return state.logger
        }
        logger?.warning("no file descriptors are left: new connections and files wait until some are free")
    }

    private func look() {
        guard isSpent else {
            // All may be taken without that anyone has asked for one more.
            guard let probe = Self.open(1) else { return noneLeft() }
            return Self.close(probe)
        }
        let logger = state.withLockedValue { state -> Logger? in
            // Twice as many, so that it does not begin anew at once.
            guard state.watchers > 0, let free = Self.open(2 * state.size) else { return nil }
            state.spare = Array(free.prefix(state.size))
            Self.close(Array(free.dropFirst(state.size)))
            spent.store(false, ordering: .relaxed)
            return state.logger
        }
        logger?.info("file descriptors are free again")
    }

    /// So many descriptors of `/dev/null`; nil when there are fewer.
    private static func open(_ count: Int) -> [CInt]? {
        var descriptors: [CInt] = []
        for _ in 0..<count {
            let descriptor = openNull()
            guard descriptor >= 0 else {
                close(descriptors)
                return nil
            }
            descriptors.append(descriptor)
        }
        return descriptors
    }

    private static func close(_ descriptors: [CInt]) { for descriptor in descriptors { closeDescriptor(descriptor) } }
}

private func openNull() -> CInt { open("/dev/null", O_RDONLY | O_CLOEXEC) }
private func closeDescriptor(_ descriptor: CInt) { _ = close(descriptor) }

/// Accepts no connections while the descriptors are needed for what cannot wait; see ``DescriptorReserve``.
final class AcceptGateHandler: ChannelOutboundHandler {
    typealias OutboundIn = Channel

    private var isWaiting = false

    func read(context: ChannelHandlerContext) {
        guard DescriptorReserve.process.isSpent else { return context.read() }
        guard !isWaiting else { return }
        isWaiting = true
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: DescriptorReserve.interval) {
            let (handler, context) = bound.value
            handler.isWaiting = false
            if context.channel.isActive { handler.read(context: context) }
        }
    }
}
