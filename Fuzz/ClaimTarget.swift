@testable import PeerRouting

/// Messages of the claim protocol: what is taken from one is limited, and reads the same when sent on.
func fuzzClaim(_ input: UnsafeBufferPointer<UInt8>) {
    if let request = try? ClaimRequest(decoding: Array(input)) {
        require((1...ClaimRequest.keyLength).contains(request.key.utf8.count), "a key of \(request.key.utf8.count) bytes")
        require((try? ClaimRequest(decoding: request.encoded())) == request, "the request differs when sent on")
    }
    if let response = try? ClaimResponse(decoding: Array(input)) {
        if case .follow(_, let addresses) = response.content {
            require(addresses.count <= ClaimResponse.addressLimit, "too many addresses")
        }
        require((try? ClaimResponse(decoding: response.encoded())) == response, "the answer differs when sent on")
    }
}
