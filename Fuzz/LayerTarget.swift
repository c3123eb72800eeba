import OCIDistribution

/// Layers: the result does not depend on how the bytes are cut into pieces.
func fuzzLayer(_ input: UnsafeBufferPointer<UInt8>) {
    func run(piece: Int) -> Result<DiffIDHasher.Result, LayerError> {
        var hasher = DiffIDHasher(limits: LayerLimits(maximumUncompressedSize: 1 << 20))
        do throws(LayerError) {
            var start = 0
            while start < input.count {
                let end = start + min(piece, input.count - start)
                try hasher.update(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(input)[start..<end]))
                start = end
            }
            return .success(try hasher.finish())
        } catch {
            return .failure(error)
        }
    }
    let whole = run(piece: max(1, input.count))
    let pieces = run(piece: 7)
    switch (whole, pieces) {
    case (.success(let whole), .success(let pieces)): require(whole == pieces, "pieces give another result")
    case (.failure, .failure): break
    default: fail("pieces give another outcome")
    }
}
