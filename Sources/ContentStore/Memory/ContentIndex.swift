import OCIDistribution

/// An index of a store in memory: content by digest, images by name, and the images that reach each piece of content.
///
/// A value without I/O or locks. Every change appends its events for subscribers to `events`. Absent content that a
/// present manifest refers to has a node as well, so that its sources are known as soon as it arrives.
///
/// A node is about 200 bytes; content, edges and names refer to each other by small integers.
package struct ContentIndex: Sendable {
    private struct Node: Sendable {
        var digest: Digest
        /// The size in bytes; negative while the content is absent.
        var size: Int64 = -1
        /// The size in bytes in the descriptor of a manifest that refers to this; negative when unknown.
        var expectedSize: Int64 = -1
        var mediaType: MediaType = .octetStream
        var children: [UInt32] = []
        var parents: [UInt32] = []
        /// Numbers of sources, ascending: those of the images that reach this, and those the backend reports.
        var sources: [UInt32] = []
        /// Those of the sources that the backend reports for this content.
        var backendSources: [UInt32] = []
        /// The number of names whose target this is, by source.
        var nameCounts: [UInt32: UInt32] = [:]

        var isPresent: Bool { size >= 0 }
        var isInUse: Bool { isPresent || !parents.isEmpty || !nameCounts.isEmpty }
    }

    private var nodes: [Node?] = []
    private var freeNodes: [UInt32] = []
    private var ids: [Digest: UInt32] = [:]
    private var targets: [Reference: Descriptor] = [:]
    private var sources = SourceTable()

    /// How much content is present.
    package private(set) var contentCount = 0
    /// The sum of the sizes in bytes of all present content.
    package private(set) var contentBytes: Int64 = 0

    /// An index of nothing.
    package init() {}

    // MARK: Queries

    /// How many images there are.
    package var imageCount: Int { targets.count }

    /// How many nodes there are, of present and of absent content.
    package var nodeCount: Int { ids.count }

    /// Describes present content.
    package func info(_ digest: Digest) -> ContentInfo? {
        guard let id = ids[digest], let node = nodes[Int(id)], node.isPresent else { return nil }
        return info(node)
    }

    /// The size of present content in bytes.
    package func size(of digest: Digest) -> Int64? {
        guard let id = ids[digest], let node = nodes[Int(id)], node.isPresent else { return nil }
        return node.size
    }

    /// Finds what a reference names; see ``ContentStore/resolve(_:)``.
    package func resolve(_ reference: Reference) -> Descriptor? {
        if let digest = reference.digest { return descriptor(digest) }
        return targets[reference].map(actualDescriptor)
    }

    /// Digest, size and media type of present content; without its sources, which take time to list.
    private func descriptor(_ digest: Digest) -> Descriptor? {
        guard let id = ids[digest], let node = nodes[Int(id)], node.isPresent else { return nil }
        return Descriptor(mediaType: node.mediaType, digest: digest, size: node.size)
    }

    /// The target with the size and media type of its content; unchanged when that is absent.
    private func actualDescriptor(_ target: Descriptor) -> Descriptor {
        guard let present = descriptor(target.digest) else { return target }
        var target = target
        target.size = present.size
        target.mediaType = present.mediaType
        return target
    }

    /// The target of a name as it was set.
    package func target(of reference: Reference) -> Descriptor? { targets[reference] }

    /// All images, sorted by name.
    package var images: [StoredImage] {
        // Names are formatted once, not in each comparison.
        targets.map {
            (name: $0.key.description, image: StoredImage(reference: $0.key, target: actualDescriptor($0.value)))
        }
        .sorted { $0.name < $1.name }.map(\.image)
    }

    /// The names of all images, in no particular order.
    package var references: some Sequence<Reference> { targets.keys }

    /// The digests of all present content, in no particular order.
    package var presentDigests: [Digest] { nodes.compactMap { $0.flatMap { $0.isPresent ? $0.digest : nil } } }

    /// Whether any image, or a manifest that is present, refers to the digest.
    package func isReferenced(_ digest: Digest) -> Bool {
        guard let id = ids[digest], let node = nodes[Int(id)] else { return false }
        return !node.nameCounts.isEmpty || !node.parents.isEmpty
    }

    /// The size in bytes in the descriptor of a present manifest; `nil` when none refers to the content.
    package func expectedSize(_ digest: Digest) -> Int64? {
        guard let id = ids[digest], let node = nodes[Int(id)], node.expectedSize >= 0, !node.parents.isEmpty else {
            return nil
        }
        return node.expectedSize
    }

    /// The digests that a present manifest refers to, each once.
    package func children(of digest: Digest) -> [Digest] {
        guard let id = ids[digest], let node = nodes[Int(id)] else { return [] }
        return node.children.compactMap { nodes[Int($0)]?.digest }
    }

    /// The content reachable from a digest and present, parents before children.
    package func reachable(from digest: Digest) -> [ContentInfo] {
        guard let root = ids[digest] else { return [] }
        var result: [ContentInfo] = []
        var seen: Set<UInt32> = [root]
        var pending = [root]
        while let id = pending.popLast() {
            guard let node = nodes[Int(id)], node.isPresent else { continue }
            result.append(info(node))
            for child in node.children.reversed() where seen.insert(child).inserted { pending.append(child) }
        }
        return result
    }

    /// An event for each image, then one for each piece of content.
    package var snapshot: [ContentEvent] {
        var events: [ContentEvent] = []
        events.reserveCapacity(targets.count + contentCount)
        for image in images { events.append(.imageSet(image)) }
        for case let node? in nodes where node.isPresent { events.append(.contentAdded(info(node))) }
        return events
    }

    // MARK: Content

    /// Adds content, or changes its description.
    ///
    /// - Parameters:
    ///   - size: in bytes, not negative.
    ///   - children: the references of a manifest; empty for other content.
    package mutating func setContent(
        _ digest: Digest, size: Int64, mediaType: MediaType, children: [Descriptor], events: inout [ContentEvent]
    ) {
        let size = max(0, size)
        let id = node(for: digest)
        let old = nodes[Int(id)]
        var changed: Set<UInt32> = []
        if old?.isPresent == true { contentBytes -= old?.size ?? 0 } else { contentCount += 1 }
        contentBytes += size
        if old?.size != size || old?.mediaType != mediaType { changed.insert(id) }
        update(id) {
            $0.size = size
            $0.mediaType = mediaType
        }
        setChildren(of: id, to: children, changed: &changed)
        appendEvents(for: changed, to: &events)
    }

    /// Removes content.
    package mutating func removeContent(_ digest: Digest, events: inout [ContentEvent]) {
        guard let id = ids[digest], let node = nodes[Int(id)], node.isPresent else { return }
        contentCount -= 1
        contentBytes -= node.size
        update(id) {
            $0.size = -1
            $0.mediaType = .octetStream
        }
        var changed: Set<UInt32> = []
        setChildren(of: id, to: [], changed: &changed)
        replaceBackendSources(of: id, by: [], changed: &changed)
        events.append(.contentRemoved(digest))
        appendEvents(for: changed, to: &events)
        pruneIfUnreferenced(id)
    }

    /// Sets the sources that the backend reports, such as containerd's labels of a pull whose image does not exist yet.
    /// They replace the former ones; absent content has none.
    ///
    /// They are visible only while no image reaches the content, since images are more exact: containerd's labels have a
    /// registry without its port.
    package mutating func setBackendSources(
        of digest: Digest, to backendSources: [ContentSource], events: inout [ContentEvent]
    ) {
        guard let id = ids[digest], let node = nodes[Int(id)], node.isPresent,
            // Nearly always nothing changes.
            node.backendSources.count != backendSources.count
                || !backendSources.allSatisfy({
                    sources.number(of: $0, kind: .backend).map(node.backendSources.contains) ?? false
                })
        else { return }
        var changed: Set<UInt32> = []
        replaceBackendSources(of: id, by: Set(backendSources), changed: &changed)
        appendEvents(for: changed, to: &events)
    }

    private mutating func replaceBackendSources(of id: UInt32, by new: Set<ContentSource>, changed: inout Set<UInt32>) {
        let old = nodes[Int(id)]?.backendSources ?? []
        guard !old.isEmpty || !new.isEmpty else { return }
        var numbers = new.map { sources.retain($0, kind: .backend) }.sorted()
        if numbers.count == 1 { numbers = sources.numbers(numbers[0]) }
        update(id) { $0.backendSources = numbers }
        for number in numbers { add(source: number, to: id, changed: &changed) }
        for number in old where !numbers.contains(number) { remove(source: number, from: id, changed: &changed) }
        for number in old { sources.release(number) }
    }

    // MARK: Images

    /// Adds an image, or changes its target.
    package mutating func setImage(_ image: StoredImage, events: inout [ContentEvent]) {
        setImages(CollectionOfOne(image), events: &events)
    }

    /// Adds images, or changes their targets. Content that several of them reach has one event.
    package mutating func setImages(_ images: some Sequence<StoredImage>, events: inout [ContentEvent]) {
        var changed: Set<UInt32> = []
        var set: [StoredImage] = []
        for image in images {
            let old = targets[image.reference]
            guard old != image.target else { continue }
            if old?.digest != image.target.digest {
                let source = sources.retain(ContentSource(image.reference), kind: .image)
                let id = node(for: image.target.digest)
                update(id) { $0.nameCounts[source, default: 0] += 1 }
                add(source: source, to: id, changed: &changed)
                if let old { removeName(of: old.digest, image.reference, changed: &changed) }
            }
            targets[image.reference] = image.target
            set.append(image)
        }
        // The events of the content come first, so that a subscriber knows the content when the image's event arrives.
        appendEvents(for: changed, to: &events)
        for image in set {
            events.append(
                .imageSet(StoredImage(reference: image.reference, target: actualDescriptor(image.target))))
        }
    }

    /// Removes a name.
    package mutating func removeImage(_ reference: Reference, events: inout [ContentEvent]) {
        removeImages(CollectionOfOne(reference), events: &events)
    }

    /// Removes names. Content that several of them reached has one event.
    package mutating func removeImages(_ references: some Sequence<Reference>, events: inout [ContentEvent]) {
        var changed: Set<UInt32> = []
        for reference in references {
            guard let old = targets.removeValue(forKey: reference) else { continue }
            removeName(of: old.digest, reference, changed: &changed)
            events.append(.imageRemoved(reference))
        }
        appendEvents(for: changed, to: &events)
    }

    private mutating func removeName(of digest: Digest, _ reference: Reference, changed: inout Set<UInt32>) {
        guard let id = ids[digest], let number = sources.number(of: ContentSource(reference), kind: .image) else {
            return
        }
        update(id) { node in
            let count = node.nameCounts[number] ?? 0
            node.nameCounts[number] = count > 1 ? count - 1 : nil
        }
        remove(source: number, from: id, changed: &changed)
        sources.release(number)
        pruneIfUnreferenced(id)
    }

    // MARK: Edges and sources

    private mutating func setChildren(of id: UInt32, to descriptors: [Descriptor], changed: inout Set<UInt32>) {
        let old = nodes[Int(id)]?.children ?? []
        var new: [UInt32] = []
        if !descriptors.isEmpty {
            var seen: Set<Digest> = []
            new.reserveCapacity(descriptors.count)
            for descriptor in descriptors where seen.insert(descriptor.digest).inserted {
                let child = node(for: descriptor.digest)
                guard child != id else { continue }
                update(child) { $0.expectedSize = descriptor.size }
                new.append(child)
            }
        }
        guard old != new else { return }
        update(id) { $0.children = new }
        let before = Set(old)
        let after = Set(new)
        let inherited = nodes[Int(id)]?.sources ?? []
        // Shared by all children that have no other parent.
        let single = [id]
        for child in new where !before.contains(child) {
            update(child) { if $0.parents.isEmpty { $0.parents = single } else { $0.parents.append(id) } }
            for source in inherited { add(source: source, to: child, changed: &changed) }
        }
        for child in old where !after.contains(child) {
            update(child) { node in
                if let index = node.parents.firstIndex(of: id) { node.parents.swapAt(index, node.parents.count - 1) }
                node.parents.removeLast()
            }
            for source in inherited { remove(source: source, from: child, changed: &changed) }
            pruneIfUnreferenced(child)
        }
    }

    private mutating func add(source: UInt32, to first: UInt32, changed: inout Set<UInt32>) {
        var pending = [first]
        while let id = pending.popLast() {
            let position = nodes[Int(id)].map { $0.sources.position(of: source) } ?? .present(0)
            guard case .absent(let index) = position else { continue }
            let single = sources.numbers(source)
            update(id) { if $0.sources.isEmpty { $0.sources = single } else { $0.sources.insert(source, at: index) } }
            changed.insert(id)
            pending.append(contentsOf: nodes[Int(id)]?.children ?? [])
        }
    }

    private mutating func remove(source: UInt32, from first: UInt32, changed: inout Set<UInt32>) {
        var pending = [first]
        while let id = pending.popLast() {
            guard let node = nodes[Int(id)], case .present(let index) = node.sources.position(of: source) else {
                continue
            }
            let isDirect = node.backendSources.contains(source) || node.nameCounts[source] != nil
            if isDirect || node.parents.contains(where: { has(source: source, $0) }) { continue }
            update(id) { _ = $0.sources.remove(at: index) }
            changed.insert(id)
            pending.append(contentsOf: node.children)
        }
    }

    private func has(source: UInt32, _ id: UInt32) -> Bool {
        if case .present? = nodes[Int(id)]?.sources.position(of: source) { true } else { false }
    }

    private func appendEvents(for changed: Set<UInt32>, to events: inout [ContentEvent]) {
        for id in changed.sorted() {
            if let node = nodes[Int(id)], node.isPresent { events.append(.contentAdded(info(node))) }
        }
    }

    // MARK: Nodes

    private func info(_ node: Node) -> ContentInfo {
        ContentInfo(
            digest: node.digest, size: node.size, mediaType: node.mediaType, sources: visibleSources(node.sources))
    }

    /// The sources of images, or those of the backend while there are none.
    private func visibleSources(_ numbers: [UInt32]) -> [ContentSource] {
        if numbers.count == 1 { return sources.list(numbers[0]) }
        let ofImages = numbers.filter { sources.kind($0) == .image }
        let visible = ofImages.isEmpty ? numbers : ofImages
        return visible.count == 1 ? sources.list(visible[0]) : visible.map { sources[$0] }.sorted()
    }

    private mutating func node(for digest: Digest) -> UInt32 {
        if let id = ids[digest] { return id }
        let id: UInt32
        if let free = freeNodes.popLast() {
            id = free
            nodes[Int(id)] = Node(digest: digest)
        } else {
            id = UInt32(nodes.count)
            nodes.append(Node(digest: digest))
        }
        ids[digest] = id
        return id
    }

    /// Changes a node in place, without copying its arrays.
    private mutating func update(_ id: UInt32, _ change: (inout Node) -> Void) {
        guard var node = nodes[Int(id)] else { return }
        nodes[Int(id)] = nil
        change(&node)
        nodes[Int(id)] = node
    }

    private mutating func pruneIfUnreferenced(_ id: UInt32) {
        guard let node = nodes[Int(id)], !node.isInUse else { return }
        nodes[Int(id)] = nil
        ids[node.digest] = nil
        freeNodes.append(id)
    }
}
