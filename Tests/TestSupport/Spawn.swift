import Foundation

/// Where a standard stream of a child leads.
package enum StandardStream: Sendable {
    /// A file or FIFO; one for output is made when it is missing and appended to, one for input is opened for both
    /// directions, so that a FIFO has no end.
    case file(String)
    /// An open descriptor of this process.
    case descriptor(Int32)
}

/// Starts a program that inherits nothing but its standard streams.
///
/// - Parameters:
///   - arguments: The program, looked up on the `PATH` unless it has a slash, and its arguments.
///   - environment: Its variables as `NAME=value`; this process's when nil.
/// - Returns: Its process ID.
/// - Throws: ``POSIXFailure``.
package func spawn(
    _ arguments: [String], environment: [String]? = nil, input: StandardStream, output: StandardStream,
    errors: StandardStream
) throws -> pid_t {
    // A program that has ended is noticed by its status, not by our own death.
    signal(SIGPIPE, SIG_IGN)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (number, stream) in [(Int32(0), input), (1, output), (2, errors)] {
        switch stream {
        case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, number)
        case .file(let path):
            let flags = number == 0 ? O_RDWR : O_WRONLY | O_CREAT | O_APPEND
            posix_spawn_file_actions_addopen(&actions, number, path, flags, 0o600)
        }
    }
    addCloseOthers(&actions)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The threads of a Swift program block most signals, SIGTERM among them, and a child would inherit that: it could
    // not be asked to end.
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigaddset(&signals, SIGPIPE)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    let argv = arguments.map { strdup($0) } + [nil]
    let envp = (environment ?? []).map { strdup($0) } + [nil]
    defer { (argv + envp).forEach { free($0) } }
    var pid = pid_t()
    let code =
        environment == nil
        ? posix_spawnp(&pid, arguments[0], &actions, &attributes, argv, environ)
        : posix_spawnp(&pid, arguments[0], &actions, &attributes, argv, envp)
    guard code == 0 else { throw POSIXFailure("posix_spawn \(arguments.joined(separator: " "))", code) }
    return pid
}

/// Adds to what a child does at its start that it closes everything but its standard streams.
///
/// It would otherwise inherit the sockets of this process, which are not marked close-on-exec, and keep ports and peers
/// busy that a test has closed. The call is not in the C library's module (glibc 2.34 or later has it).
private func addCloseOthers(_ actions: inout posix_spawn_file_actions_t) {
    typealias AddCloseFrom = @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
    guard let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") else {
        preconditionFailure("this C library cannot close the descriptors of a child")
    }
    _ = unsafeBitCast(symbol, to: AddCloseFrom.self)(&actions, 3)
}

/// Puts `setpriv` before a program, so that the kernel ends it when the thread that started it ends.
package func endingWithThread(_ arguments: [String]) -> [String] {
    ["setpriv", "--pdeathsig", "KILL", "--"] + arguments
}

/// Waits for the end of a child and leaves it as it is: its number is not given to another process before ``reap(_:)``.
///
/// Signals sent under the lock that reaping takes, too, meet the child or nobody.
package func waitForEnd(of pid: pid_t) {
    var information = siginfo_t()
    while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) < 0, errno == EINTR {}
}

/// Waits for the end of a child and reaps it.
///
/// - Returns: the exit status, or the negated signal.
package func reap(_ pid: pid_t) -> Int32 {
    var raw: Int32 = 0
    while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
    return raw & 0x7f == 0 ? (raw >> 8) & 0xff : -(raw & 0x7f)
}

/// A system call that failed.
package struct POSIXFailure: Error, CustomStringConvertible {
    package var description: String

    package init(_ call: String, _ code: Int32) {
        description = "\(call): \(String(cString: strerror(code)))"
    }
}
