/// The files of a directory, as a value: what is there, or what shall be.
package struct FileTree: Hashable, Sendable {
    /// One entry of a directory.
    package indirect enum Node: Hashable, Sendable {
        case file(File)
        case directory(FileTree)
        /// A symbolic link, with what it leads to when that is a directory or file that could be read.
        case link(target: String, content: Node?)
        /// Something else, such as a socket; kept, never read.
        case other(origin: String)
    }

    /// A regular file.
    package struct File: Hashable, Sendable {
        /// The content; nil when it is too large to be of interest, then only its place counts.
        package var bytes: [UInt8]?
        /// The permission bits.
        package var mode: UInt32
        /// Where the file stands now, relative to the configuration directory, when it is not a new one. It is linked from
        /// there, so that owner, mode and content stay.
        package var origin: String?

        package init(bytes: [UInt8]?, mode: UInt32 = 0o644, origin: String? = nil) {
            self.bytes = bytes
            self.mode = mode
            self.origin = origin
        }
    }

    /// The entries by name.
    package var entries: [String: Node]
    /// The permission bits of the directory; nil for the default of 0755.
    package var mode: UInt32?

    package init(_ entries: [String: Node] = [:], mode: UInt32? = nil) {
        self.entries = entries
        self.mode = mode
    }

    /// The directory at a name, also through a symbolic link; nil when there is none.
    package func directory(_ name: String) -> FileTree? { entries[name].flatMap(Self.directory) }

    private static func directory(_ node: Node) -> FileTree? {
        switch node {
        case .directory(let tree): tree
        case .link(_, let content): content.flatMap(directory)
        case .file, .other: nil
        }
    }

    /// The file at a name, also through a symbolic link.
    package func file(_ name: String) -> File? {
        switch entries[name] {
        case .file(let file): file
        case .link(_, .file(let file)?): file
        default: nil
        }
    }

    /// Adds what another tree has and this one has not. Where both have an entry of one name that differs, the other's is
    /// added under a name of its own, so that nothing is lost.
    ///
    /// - Returns: The paths that were added under another name.
    @discardableResult
    package mutating func merge(_ other: FileTree, below path: String = "") -> [String] {
        var renamed: [String] = []
        for (name, node) in other.entries.sorted(by: { $0.key < $1.key }) {
            switch (entries[name], node) {
            case (nil, _):
                entries[name] = node
            case (.directory(var mine)?, .directory(let theirs)):
                renamed += mine.merge(theirs, below: path + name + "/")
                entries[name] = .directory(mine)
            case (let mine?, _) where mine.hasContent(of: node):
                break
            default:
                let free = (1...).lazy.map { "\(name).kept-\($0)" }.first { self.entries[$0] == nil }
                guard let free else { break }
                entries[free] = node
                renamed.append(path + free)
            }
        }
        return renamed
    }
}

extension FileTree.Node {
    /// Whether both hold the same content, wherever it stands.
    func hasContent(of other: FileTree.Node) -> Bool {
        switch (self, other) {
        case (.file(let left), .file(let right)): left.bytes != nil && left.bytes == right.bytes
        case (.link(let left, _), .link(let right, _)): left == right
        default: false
        }
    }
}
