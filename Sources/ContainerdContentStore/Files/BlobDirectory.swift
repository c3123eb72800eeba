import ContentStore
import NIOCore
import OCIDistribution

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The directory in which containerd keeps content as files: `blobs/<algorithm>/<hex>`.
package struct BlobDirectory: Sendable, Hashable {
    /// The content path, such as `/var/lib/containerd/io.containerd.content.v1.content`.
    package let path: String

    /// Refers to a directory, without opening it.
    package init(path: String) {
        self.path = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
    }

    /// The result of opening a blob.
    package enum Opened {
        /// Open for reading; the caller closes the descriptor.
        case file(descriptor: CInt)
        /// There is no such file.
        case absent
        /// The file exists, but is not a regular file of the expected size, with a description.
        case damaged(String)
        /// The operating system reports this `errno`.
        case failed(CInt)
    }

    /// Opens a blob that must be a regular file, not a symbolic link, of `size` bytes.
    package func open(_ digest: Digest, size: Int64) -> Opened {
        let descriptor = openReadOnly(file(of: digest), O_NOFOLLOW)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENOTDIR: return .absent
            case ELOOP: return .damaged("a symbolic link")
            default: return .failed(errno)
            }
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let number = errno
            close(descriptor)
            return .failed(number)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            return .damaged("not a regular file")
        }
        guard Int64(status.st_size) == size else {
            close(descriptor)
            return .damaged("a file of \(status.st_size) bytes instead of \(size)")
        }
        return .file(descriptor: descriptor)
    }

    /// Why the directory cannot be read; `nil` when it can.
    package func accessError() -> AccessError? {
        let descriptor = openReadOnly(path, O_DIRECTORY)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT: return .missing
            case ENOTDIR: return .notADirectory
            case EACCES, EPERM: return .denied
            default: return .other(String(cString: strerror(errno)))
            }
        }
        close(descriptor)
        // Search permission is needed as well as read permission.
        var status = stat()
        if stat(path + "/blobs", &status) != 0, errno == EACCES || errno == EPERM { return .denied }
        return nil
    }

    /// Why a content path cannot be used.
    package enum AccessError: Sendable, Hashable {
        /// There is nothing at the path.
        case missing
        /// There is nothing at the path yet: containerd holds no content, and some versions make the directory with the first.
        case notMadeYet
        /// There is something else at the path.
        case notADirectory
        /// The process may not read it.
        case denied
        /// The directory lacks content that containerd has.
        case lacksContent
        /// Another error, in words.
        case other(String)
    }

    private func file(of digest: Digest) -> String { "\(path)/blobs/\(digest.algorithm.rawValue)/\(digest.hex)" }
}

/// `open(2)` for reading, closed on `exec`, again after a signal; a blob that turns out to be a FIFO must not block.
func openReadOnly(_ path: String, _ flags: CInt) -> CInt {
    let flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags
    while true {
        #if canImport(Darwin)
            let descriptor = Darwin.open(path, flags)
        #elseif canImport(Glibc)
            let descriptor = Glibc.open(path, flags)
        #elseif canImport(Musl)
            let descriptor = Musl.open(path, flags)
        #endif
        if descriptor >= 0 || errno != EINTR { return descriptor }
    }
}

/// How the bytes of content are read.
public enum BlobAccess: Sendable, Hashable, CustomStringConvertible {
    /// As files below a content path.
    case files(path: String)
    /// Through containerd's content service, which is slower, with the reason and what to do about it.
    case service(reason: String)

    /// The access in words.
    public var description: String {
        switch self {
        case .files(let path): "files in \(path)"
        case .service(let reason): "containerd's content service (\(reason))"
        }
    }

    /// Explains why a content path is not used.
    static func service(
        _ directory: BlobDirectory, _ error: BlobDirectory.AccessError, reported: String?
    ) -> BlobAccess {
        if error == .notMadeYet {
            return .service(
                reason:
                    "containerd holds no content yet; the content path \(directory.path) is read once containerd makes it"
            )
        }
        var reason =
            switch error {
            case .missing, .notMadeYet: "the content path \(directory.path) does not exist"
            case .notADirectory: "the content path \(directory.path) is not a directory"
            case .denied:
                "permission denied for the content path \(directory.path): run as root or mount it readable"
            case .lacksContent:
                "the content path \(directory.path) does not hold what containerd has, so it is not containerd's"
            case .other(let text): "the content path \(directory.path) cannot be read: \(text)"
            }
        if error != .denied {
            if let reported, BlobDirectory(path: reported) != directory {
                reason += "; containerd keeps content in \(reported) (--containerd-content-path)"
            } else {
                reason += "; in a container, mount it at the same path, read-only"
            }
        }
        return .service(reason: reason)
    }
}
