import Foundation

/// Adds to what a child does at its start that it closes everything but its standard streams.
///
/// It would otherwise inherit the sockets of this process, which are not marked close-on-exec, and keep ports and peers
/// busy that a test has closed. The call is not in the C library's module (glibc 2.34 or later has it).
public func addCloseOthers(_ actions: inout posix_spawn_file_actions_t) {
    typealias AddCloseFrom = @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
    guard let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") else {
        preconditionFailure("this C library cannot close the descriptors of a child")
    }
    _ = unsafeBitCast(symbol, to: AddCloseFrom.self)(&actions, 3)
}
