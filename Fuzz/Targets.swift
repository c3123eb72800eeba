/// Every fuzz target by name. To add one: a file with its function, a line here, and a directory of small inputs under
/// `Fuzz/Corpus/<name>`. When it needs another module, add that to `modules` in `scripts/fuzz`.
let targets: [String: @Sendable (UnsafeBufferPointer<UInt8>) -> Void] = [
    "path": fuzzPath,
    "reference": fuzzReference,
    "range": fuzzRange,
    "manifest": fuzzManifest,
    "index": fuzzIndex,
    "layer": fuzzLayer,
    "filter": fuzzFilter,
    "varint": fuzzVarint,
    "multiaddr": fuzzMultiaddr,
    "peer-id": fuzzPeerID,
    "multistream": fuzzMultistream,
    "noise": fuzzNoise,
    "yamux": fuzzYamux,
    "protobuf": fuzzProtobuf,
    "identify": fuzzIdentify,
    "kademlia": fuzzKademlia,
    "claim": fuzzClaim,
    "http-request": fuzzHTTPRequest,
    "http-response": fuzzHTTPResponse,
]
