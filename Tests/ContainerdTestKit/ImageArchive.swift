import ContentStoreConformance
import Foundation
import OCIDistribution

/// Writes an OCI image layout as a tar archive, for `ctr images import`.
public enum ImageArchive {
    /// Writes an archive.
    ///
    /// - Parameters:
    ///   - images: names and what they name.
    ///   - blobs: the content to include.
    ///   - path: the file.
    public static func write(
        _ images: [(name: String, target: Descriptor)], blobs: [SampleContent.Blob], to path: String
    ) throws {
        let manifests = images.map { image in
            let target = image.target
            return #"{"mediaType":"\#(target.mediaType)","digest":"\#(target.digest)","size":\#(target.size),"#
                + #""annotations":{"io.containerd.image.name":"\#(image.name)"}}"#
        }
        let index = #"{"schemaVersion":2,"manifests":[\#(manifests.joined(separator: ","))]}"#
        var archive = Data()
        append("oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8), to: &archive)
        append("index.json", Array(index.utf8), to: &archive)
        for blob in blobs { append("blobs/sha256/\(blob.digest.hex)", blob.bytes, to: &archive) }
        archive.append(Data(count: 1024))
        try archive.write(to: URL(fileURLWithPath: path))
    }

    /// One file in the ustar format (POSIX pax interchange, without extensions).
    private static func append(_ name: String, _ bytes: [UInt8], to archive: inout Data) {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int) {
            header.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8)
        }
        func octal(_ number: Int, _ width: Int) -> String {
            let text = String(number, radix: 8)
            return String(repeating: "0", count: width - text.count) + text
        }
        put(name, at: 0)
        put("0000644\0", at: 100)
        put("0000000\0", at: 108)
        put("0000000\0", at: 116)
        put(octal(bytes.count, 11), at: 124)
        put("00000000000", at: 136)
        put("        ", at: 148)
        put("0", at: 156)
        put("ustar\u{0}00", at: 257)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\0 ", at: 148)
        archive.append(contentsOf: header)
        archive.append(contentsOf: bytes)
        archive.append(Data(count: (512 - bytes.count % 512) % 512))
    }
}
