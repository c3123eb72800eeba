import Foundation

/// Paths as text.
///
/// Foundation's own need `NSString`, and one use of that brings 34 MiB of ICU's data into a program that is linked statically.
extension String {
    /// The path of the directory that an entry is in: `/` for entries of the root, empty for a name alone.
    package var directoryPath: String {
        guard let slash = trimmedPath.lastIndex(of: "/") else { return "" }
        let directory = trimmedPath[..<slash].trimmingSlashes
        return directory.isEmpty ? "/" : String(directory)
    }

    /// The last component of a path.
    package var fileName: String {
        guard let slash = trimmedPath.lastIndex(of: "/") else { return String(trimmedPath) }
        return String(trimmedPath[trimmedPath.index(after: slash)...])
    }

    /// A path without empty components, `.` and `..`, as text: links are not followed.
    package var normalizedPath: String {
        var components: [Substring] = []
        for component in split(separator: "/") where component != "." {
            if component == "..", let last = components.last, last != ".." {
                components.removeLast()
            } else if component != ".." || !hasPrefix("/") {
                components.append(component)
            }
        }
        return (hasPrefix("/") ? "/" : "") + components.joined(separator: "/")
    }

    private var trimmedPath: Substring { self[...].trimmingSlashes }
}

extension Substring {
    fileprivate var trimmingSlashes: Substring {
        var rest = self
        while rest.count > 1, rest.last == "/" { rest.removeLast() }
        return rest
    }
}

/// Why a file operation failed, in the words of the system where it has some.
package func fileErrorReason(_ error: any Error) -> String {
    if let posix = (error as? CocoaError)?.underlying as? POSIXError {
        return String(cString: strerror(posix.code.rawValue))
    }
    return "\(error)"
}
