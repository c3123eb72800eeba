import Foundation
import Testing

/// The same requests to Docker's registry and to the daemon: equal answers, but for differences that are meant.
@Suite struct CounterpartTests {
    /// What is compared for one request.
    private struct Row {
        var name: String
        var method = "GET"
        var path: String
        var headers: [String: String] = [:]
        /// Header fields that must be equal, or absent on both sides.
        var compared = ["content-type", "content-length", "docker-content-digest"]
        /// Whether an error's code is compared too.
        var comparesCode = true
        /// Why the two differ, with the status of ours, where they are meant to.
        var difference: (status: Int, reason: String)?
    }

    @Test func answersAlike() async throws {
        let layout = try await TestImages.small()
        let daemon = try await TestDaemon.start(store: layout.path, arguments: ["--default-registry", "docker.io"])
        let other = try await TestUpstream.start()
        try await other.push(layout, TestImages.demo)

        let index = try layout.digest(of: TestImages.demo)
        let manifest = try #require(try layout.digests(of: TestImages.demo, architecture: "amd64").dropFirst().first)
        let layer = try layout.largestLayer(of: TestImages.demo)
        let absent = "sha256:" + String(repeating: "0", count: 64)
        let accept = [
            "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        ]
        let blobs = "/v2/library/demo/blobs"
        let manifests = "/v2/library/demo/manifests"
        var rows: [Row] = [
            Row(name: "base", path: "/v2/", compared: []),
            Row(name: "tag", path: "\(manifests)/1.0", headers: accept),
            Row(name: "tag, HEAD", method: "HEAD", path: "\(manifests)/1.0", headers: accept),
            Row(name: "index", path: "\(manifests)/\(index)", headers: accept),
            Row(name: "manifest", path: "\(manifests)/\(manifest)", headers: accept),
            Row(name: "blob", path: "\(blobs)/\(layer.digest)"),
            Row(name: "blob, HEAD", method: "HEAD", path: "\(blobs)/\(layer.digest)"),
            Row(name: "absent tag", path: "\(manifests)/2.0", compared: []),
            Row(name: "absent digest", path: "\(manifests)/\(absent)", compared: []),
            Row(name: "absent blob", path: "\(blobs)/\(absent)", compared: []),
            Row(name: "absent blob, HEAD", method: "HEAD", path: "\(blobs)/\(absent)", compared: []),
            Row(name: "absent repository", path: "/v2/library/none/manifests/1.0", compared: []),
            Row(name: "unknown path", path: "/nothing", compared: []),
            Row(
                name: "bad range", path: "\(blobs)/\(layer.digest)", headers: ["Range": "bytes=x-y"], compared: [],
                difference: (400, "malformed ranges are refused, so that a client's mistake is not answered as a whole")
            ),
            Row(
                name: "several ranges", path: "\(blobs)/\(layer.digest)", headers: ["Range": "bytes=0-1,4-5"],
                compared: [], difference: (400, "one range is all a pull needs")),
            Row(
                name: "beyond the end", path: "\(blobs)/\(layer.digest)", headers: ["Range": "bytes=\(layer.size)-"],
                compared: ["content-range"], comparesCode: false),
            Row(
                name: "index as blob", path: "\(blobs)/\(index)", compared: [],
                difference: (200, "content is bytes, whatever it is: artifacts carry manifests as layers")),
            Row(
                name: "deletion", method: "DELETE", path: "\(manifests)/\(index)", compared: []),
        ]
        for range in ["0-0", "1-", "-1", "-100", "5-1000", "100-1000000000"] {
            rows.append(
                Row(
                    name: "range \(range)", path: "\(blobs)/\(layer.digest)", headers: ["Range": "bytes=\(range)"],
                    compared: ["content-range", "content-length"]))
        }

        for row in rows {
            // The counterpart announces a length with 416 and then sends another, so its end is the connection's.
            let theirs = try await RawConnection(other.address, other.port)
                .request(row.method, row.path, headers: row.headers, toleratesShortBody: true)
            let ours = try await daemon.request(row.method, row.path, headers: row.headers)
            if let difference = row.difference {
                #expect(ours.status == difference.status, "\(row.name): \(difference.reason)")
                #expect(theirs.status != difference.status, "\(row.name): no difference any more")
                continue
            }
            #expect(ours.status == theirs.status, "\(row.name): ours \(ours.status), theirs \(theirs.status)")
            for name in row.compared {
                #expect(ours.header(name) == theirs.header(name), "\(row.name): \(name)")
            }
            if ours.status < 300, row.path != "/v2/" {
                #expect(ours.body == theirs.body, "\(row.name)")
            } else if ours.status >= 400, row.method != "HEAD", row.path.hasPrefix("/v2/"), row.comparesCode {
                let codes = try [ours, theirs].map { try errorCode($0) }
                #expect(codes[0] == codes[1], "\(row.name): \(codes)")
            }
        }
    }

    private func errorCode(_ response: RawConnection.Response) throws -> String {
        let object = try JSONSerialization.jsonObject(with: Data(response.body)) as? [String: Any]
        let errors = object?["errors"] as? [[String: Any]]
        return errors?.first?["code"] as? String ?? "none in \(response.text)"
    }
}
