import NIOCore

/// Bytes given to a parser piece by piece, as they come from a socket: once whole, once in pieces whose size the first
/// byte decides.
///
/// What a parser makes of them must not depend on where they are cut.
func requireSameInPieces<Outcome: Equatable>(
    _ input: UnsafeBufferPointer<UInt8>, _ what: String, _ run: (_ pieces: [ByteBuffer]) -> Outcome
) {
    guard let first = input.first else { return }
    let bytes = input.dropFirst()
    let size = Int(first % 16) + 1
    let pieces = stride(from: bytes.startIndex, to: bytes.endIndex, by: size).map {
        ByteBuffer(bytes: bytes[$0..<min($0 + size, bytes.endIndex)])
    }
    let whole = run([ByteBuffer(bytes: bytes)])
    let cut = run(pieces)
    require(whole == cut, "\(what): whole \(whole), in pieces of \(size): \(cut)")
}
