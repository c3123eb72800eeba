#if Containerd
    import OCIDistribution

    /// How the bytes of content are reached.
    public enum BlobAccess: Sendable, Hashable, CustomStringConvertible {
        /// As files below a content path.
        case files(path: String)
        /// Through containerd's content service, which is slower. Says why, and what to do about it.
        case service(reason: String)

        /// Says it in words.
        public var description: String {
            switch self {
            case .files(let path): "files in \(path)"
            case .service(let reason): "containerd's content service (\(reason))"
            }
        }

        /// Says why a content path is not used.
        static func service(
            _ directory: BlobDirectory, _ fault: BlobDirectory.Fault, reported: String?
        ) -> BlobAccess {
            var reason =
                switch fault {
                case .missing: "the content path \(directory.path) does not exist"
                case .notADirectory: "the content path \(directory.path) is not a directory"
                case .denied:
                    "permission denied for the content path \(directory.path): run as root or mount it readable"
                case .lacksContent:
                    "the content path \(directory.path) does not hold what containerd has, so it belongs to something else"
                case .other(let text): "the content path \(directory.path) cannot be read: \(text)"
                }
            if fault != .denied {
                if let reported, BlobDirectory(path: reported) != directory {
                    reason += "; containerd keeps content in \(reported) (--containerd-content-path)"
                } else {
                    reason += "; in a container, mount it at the same path, read-only"
                }
            }
            return .service(reason: reason)
        }
    }
#endif
