import OCIDistribution

/// The target of an HTTP request: what parses has valid parts, and its canonical form means the same.
func fuzzPath(_ input: UnsafeBufferPointer<UInt8>) {
    for standard in [nil, "docker.io"] as [String?] {
        let options = DistributionRequest.Options(defaultRegistry: standard)
        do throws(DistributionError) {
            let request = try DistributionRequest(parsingUTF8: input, options: options)
            guard let registry = request.registry, let repository = request.repository else { continue }
            let parts = try? Reference(
                registry: registry, repository: repository, tag: request.tag, digest: request.digest)
            require(parts == request.reference, "invalid parts")
            require((try? DistributionRequest(parsing: request.uri)) == request, "the canonical form differs")
        } catch {
            require((400..<500).contains(error.httpStatus), "a bad path is the client's fault")
            require(error.jsonBody.count < 2048, "the answer grows with the input")
        }
    }
}
