/// Which store the daemon serves.
enum StoreChoice: Equatable, Sendable {
    /// containerd's.
    case containerd
    /// An OCI image layout on disk.
    case onDisk(path: String)

    /// The transform of the option.
    @Sendable static func parse(_ text: String) throws -> StoreChoice {
        if text == "containerd" { return .containerd }
        // A bare word is more likely a mistyped backend than a directory.
        guard text.contains(Character("/")) || text.hasPrefix("."), text.unicodeScalars.allSatisfy({ $0.value >= 0x20 })
        else {
            throw OptionError("containerd, or the path of an OCI image layout such as /srv/layout or ./layout")
        }
        return .onDisk(path: text)
    }
}
