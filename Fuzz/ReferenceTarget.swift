import OCIDistribution

/// References and digests as text: what parses prints as it was.
func fuzzReference(_ input: UnsafeBufferPointer<UInt8>) {
    let text = String(decoding: input, as: UTF8.self)
    do throws(ReferenceError) {
        let reference = try Reference(parsing: text)
        require(reference.description == text, "a reference prints differently")
    } catch {
        require(error.description.utf8.count < 2048, "the message grows with the input")
    }
    if let reference = try? Reference(parsingWithDockerDefaults: text) {
        require(Reference(reference.description) == reference, "a completed reference does not parse")
    }
    do throws(DigestError) {
        let digest = try Digest(parsing: text)
        require(digest.description == text, "a digest prints differently")
    } catch {
        require(error.description.utf8.count < 2048, "the message grows with the input")
    }
    _ = try? ReferenceFilter(mirroredRegistries: [text], patterns: [])
}
