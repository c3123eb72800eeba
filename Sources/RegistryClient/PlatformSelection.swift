import OCIDistribution

/// The platforms of an index that a pull takes.
package enum PlatformSelection: Sendable, Hashable {
    /// One platform, as a node pulls it.
    case only(Platform)
    /// Whatever of the index the server has.
    case all

    /// The platform that this program was built for.
    package static var current: PlatformSelection { .only(.current) }

    /// Chooses among the elements of an index.
    ///
    /// Of several elements for the platform, the one with the nearest variant is taken. Where none is for it, the elements that
    /// name no platform are: artifacts, and indexes in which the platform may be.
    func choose(from manifests: [Descriptor]) -> [Descriptor] {
        guard case .only(let wanted) = self else { return manifests }
        let matching = manifests.compactMap { descriptor -> (descriptor: Descriptor, distance: Int)? in
            guard let platform = descriptor.platform, let distance = platform.distance(to: wanted) else { return nil }
            return (descriptor, distance)
        }
        if let nearest = matching.min(by: { $0.distance < $1.distance }) { return [nearest.descriptor] }
        return manifests.filter { $0.platform?.isUnspecified ?? true }
    }
}

extension Platform {
    /// The platform that this program was built for.
    package static var current: Platform {
        #if arch(arm64)
            let architecture = "arm64"
        #elseif arch(arm)
            let architecture = "arm"
        #elseif arch(riscv64)
            let architecture = "riscv64"
        #elseif arch(s390x)
            let architecture = "s390x"
        #elseif arch(powerpc64le)
            let architecture = "ppc64le"
        #else
            let architecture = "amd64"
        #endif
        return Platform(architecture: architecture, os: "linux").normalized
    }

    /// Reads `os/architecture[/variant]`, as tools write it; nil for anything else.
    package init?(parsing text: String) {
        let parts = text.lowercased().split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard (2...3).contains(parts.count),
            parts.allSatisfy({ part in
                !part.isEmpty && part.utf8.allSatisfy { $0.isASCIILetterOrDigit || [0x2d, 0x2e, 0x5f].contains($0) }
            })
        else { return nil }
        self = Platform(architecture: parts[1], os: parts[0], variant: parts.count == 3 ? parts[2] : nil).normalized
    }

    /// The spelling that containerd compares: Docker's names of processors become Go's, and a variant that every processor of
    /// the architecture has is left out.
    var normalized: Platform {
        var result = self
        switch architecture {
        case "x86_64", "x86-64": result.architecture = "amd64"
        case "aarch64": result.architecture = "arm64"
        case "armhf": (result.architecture, result.variant) = ("arm", "v7")
        case "armel": (result.architecture, result.variant) = ("arm", "v6")
        case "i386", "i686": result.architecture = "386"
        default: break
        }
        switch (result.architecture, result.variant) {
        case ("amd64", "v1"), ("arm64", "v8"), ("arm64", "8"), (_, ""): result.variant = nil
        case ("arm", nil): result.variant = "v7"
        case ("arm", let variant?) where ["5", "6", "7", "8"].contains(variant): result.variant = "v\(variant)"
        default: break
        }
        return result
    }

    /// Whether no platform is named, as in the elements of an artifact's index.
    var isUnspecified: Bool { os.isEmpty && architecture.isEmpty }

    /// How far an image for this platform is from what a node wants; nil when the node cannot run it.
    ///
    /// A 32-bit ARM processor runs what is made for an earlier one.
    func distance(to wanted: Platform) -> Int? {
        let (offered, wanted) = (normalized, wanted.normalized)
        guard offered.os == wanted.os, offered.architecture == wanted.architecture else { return nil }
        if offered.variant == wanted.variant { return 0 }
        func generation(_ variant: String?) -> Int? {
            variant.flatMap { $0.first == "v" ? Int($0.dropFirst()) : nil } ?? (variant == nil ? 0 : nil)
        }
        guard let have = generation(wanted.variant), let needed = generation(offered.variant), needed < have else {
            return nil
        }
        return have - needed
    }
}

extension UInt8 {
    fileprivate var isASCIILetterOrDigit: Bool {
        (0x30...0x39).contains(self) || (0x61...0x7a).contains(self)
    }
}
