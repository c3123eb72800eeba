import Foundation

/// A port to give up and take again, on an address of its own for each test.
///
/// It is none that the kernel hands out, so neither a listener on all addresses nor an outgoing connection of another
/// test takes it meanwhile; processes differ.
package let reservedPort = 15_000 + Int(getpid()) % 10_000
