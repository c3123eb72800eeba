import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import TestSupport

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
                        let child = try spawnWithPipes(endingWithThread(arguments))
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

    /// Starts the program with pipes for standard input and output.
    ///
    /// - Returns: Its process ID and our ends of the pipes.
    private static func spawnWithPipes(_ arguments: [String]) throws -> (pid: pid_t, input: CInt, output: CInt) {
        var input: [CInt] = [-1, -1]
        var output: [CInt] = [-1, -1]
        guard pipe(&input) == 0, pipe(&output) == 0 else { throw POSIXFailure("pipe", errno) }
        for descriptor in input + output { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        defer {
            close(input[0])
            close(output[1])
        }
        do {
            let pid = try spawn(
                arguments, input: .descriptor(input[0]), output: .descriptor(output[1]), errors: .file("/dev/null"))
            return (pid, input[1], output[0])
        } catch {
            close(input[1])
            close(output[0])
            throw error
        }
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
