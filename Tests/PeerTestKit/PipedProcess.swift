import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import SpawnKit

/// A program whose standard input and output are pipes served by an event loop.
///
/// Nothing here waits on a thread of Swift's pool, which has no more threads than the machine has cores.
package final class PipedProcess: Sendable {
    /// The lines of its standard output; closed at the output's end.
    package let lines: Inbox<String>
    private let pid: pid_t
    private let channel: any Channel
    private let end: EventLoopFuture<Int32>
    private let hasEnded: NIOLoopBoundBox<Bool>

    /// Starts a program, which does not outlive the tests. What it says on standard error is thrown away.
    package static func start(_ arguments: [String]) async throws -> PipedProcess {
        let end = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Int32.self)
        let started: (pid: pid_t, input: CInt, output: CInt)
        do {
            started = try await withCheckedThrowingContinuation { continuation in
                // The kernel binds the signal at the parent's death to the thread that started the child, so one thread
                // does both: start it and wait for its end.
                Thread.detachNewThread {
                    do {
                        let child = try spawn(["setpriv", "--pdeathsig", "KILL", "--"] + arguments)
                        continuation.resume(returning: child)
                        end.succeed(reap(child.pid))
                    } catch {
                        continuation.resume(throwing: error)
                    }
                }
            }
        } catch {
            end.fail(error)
            throw error
        }
        let lines = Inbox<String>()
        let channel = try await NIOPipeBootstrap(group: end.futureResult.eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(LineReader(lines))
                }
            }
            .takingOwnershipOfDescriptors(input: started.output, output: started.input).get()
        return PipedProcess(started.pid, channel, lines, end.futureResult)
    }

    private init(_ pid: pid_t, _ channel: any Channel, _ lines: Inbox<String>, _ end: EventLoopFuture<Int32>) {
        self.pid = pid
        self.channel = channel
        self.lines = lines
        self.end = end
        let hasEnded = NIOLoopBoundBox.makeBoxSendingValue(false, eventLoop: end.eventLoop)
        self.hasEnded = hasEnded
        end.whenComplete { _ in hasEnded.value = true }
    }

    private static let starting = NIOLock()

    /// Starts the program with pipes for standard input and output.
    ///
    /// - Returns: Its process ID and our ends of the pipes.
    private static func spawn(_ arguments: [String]) throws -> (pid: pid_t, input: CInt, output: CInt) {
        // A program that ended is noticed by its status, not by our own death.
        signal(SIGPIPE, SIG_IGN)
        // One at a time: what one start opens must not be inherited by the child of another.
        starting.lock()
        defer { starting.unlock() }
        var input: [CInt] = [-1, -1]
        var output: [CInt] = [-1, -1]
        guard pipe(&input) == 0, pipe(&output) == 0 else { throw IOError(errnoCode: errno, reason: "pipe") }
        for descriptor in input + output { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input[0], 0)
        posix_spawn_file_actions_adddup2(&actions, output[1], 1)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        addCloseOthers(&actions)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The threads of a Swift program block most signals, SIGTERM among them, and a child would inherit that: it
        // could not be asked to end.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var defaults = sigset_t()
        sigemptyset(&defaults)
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        let words = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var pid = pid_t()
        let code = posix_spawnp(&pid, arguments[0], &actions, &attributes, words, environ)
        close(input[0])
        close(output[1])
        guard code == 0 else {
            close(input[1])
            close(output[0])
            throw IOError(errnoCode: code, reason: "posix_spawn \(arguments.joined(separator: " "))")
        }
        return (pid, input[1], output[0])
    }

    /// Writes a line to its standard input.
    package func write(line: String) {
        channel.writeAndFlush(ByteBuffer(string: line + "\n"), promise: nil)
    }

    /// Waits for its end; one that is there when the task is cancelled, as a test is that passes its time limit, is
    /// killed.
    ///
    /// - Returns: The exit status, or the negated signal.
    package func wait() async throws -> Int32 {
        try await withTaskCancellationHandler {
            try await end.get()
        } onCancel: {
            end.eventLoop.execute { self.send(SIGKILL) }
        }
    }

    /// Asks it to end, insists after a while, and waits.
    package func stop() async {
        let end = end
        try? await end.eventLoop.submit {
            self.send(SIGTERM)
            let insisting = end.eventLoop.scheduleTask(in: .seconds(10)) { self.send(SIGKILL) }
            end.whenComplete { _ in insisting.cancel() }
        }.get()
        _ = try? await end.get()
        try? await channel.close()
    }

    /// Only on the loop that hears of the end first, so that no other process of that number is hit.
    private func send(_ signal: CInt) {
        guard !hasEnded.value else { return }
        kill(pid, signal)
    }
}

/// Cuts what comes in into lines.
private final class LineReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let lines: Inbox<String>
    private var partial = ByteBuffer()

    init(_ lines: Inbox<String>) {
        self.lines = lines
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        partial.writeBuffer(&bytes)
        while let index = partial.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
            let line = partial.readString(length: index - partial.readerIndex) ?? ""
            partial.moveReaderIndex(forwardBy: 1)
            lines.put(line)
        }
        partial.discardReadBytes()
    }

    func channelInactive(context: ChannelHandlerContext) { lines.close() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
