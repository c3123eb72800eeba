import Foundation

/// Waits for the end of a child and leaves it as it is: its number is not given to another process before ``reap(_:)``.
///
/// Signals sent under the lock that reaping takes, too, meet the child or nobody.
public func waitForEnd(of pid: pid_t) {
    var information = siginfo_t()
    while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) < 0, errno == EINTR {}
}

/// Waits for the end of a child and reaps it.
///
/// - Returns: the exit status, or the negated signal.
public func reap(_ pid: pid_t) -> Int32 {
    var raw: Int32 = 0
    while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
    return raw & 0x7f == 0 ? (raw >> 8) & 0xff : -(raw & 0x7f)
}

/// What a child has written to a file so far; a character at the end may be only half there yet.
public func textSoFar(of path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
}
