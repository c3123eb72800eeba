import OCIDistribution

/// What a piece of an image is for.
package enum ContentRole: String, Sendable {
    case index
    case manifest
    case config
    case layer
    /// Content of an artifact, which is neither.
    case blob

    /// The role of what a descriptor in a manifest points to.
    init(_ descriptor: Descriptor) {
        let type = descriptor.mediaType
        if type.isIndex {
            self = .index
        } else if type.isManifest {
            self = .manifest
        } else if type.isConfig {
            self = .config
        } else {
            self = type.isLayer ? .layer : .blob
        }
    }
}

/// What happens during a pull, in order for each piece.
package enum PullEvent: Sendable {
    /// A piece will be fetched.
    case planned(Descriptor, ContentRole)
    /// Its bytes begin to arrive.
    case started(Digest)
    /// So many of its bytes have arrived.
    case progress(Digest, received: Int64)
    /// A try failed and another follows.
    case retrying(Digest, reason: String)
    /// A piece is complete and in the store.
    case finished(PulledContent)
}

/// A piece of an image after a pull.
package struct PulledContent: Sendable {
    package var descriptor: Descriptor
    package var role: ContentRole
    /// Where it came from; nil when the store had it already.
    package var source: RegistryEndpoint?
    /// How long it took, from the first request to the store's commit.
    package var duration: Duration
    /// How often it was asked for again.
    package var retries: Int
}

/// A piece of an image that a pull left out.
package struct PullOmission: Sendable, Hashable {
    /// Why it was left out.
    package enum Reason: Sendable, Hashable {
        /// An index names it for a platform that was not selected.
        case otherPlatform
        /// The server does not have it.
        case absent
        /// The server does not have so many of its config and layers.
        case incomplete(absent: Int)
        /// A layer that is not distributed with images: registries need not have it.
        case foreign
    }

    /// What was left out; with the platform that an index names.
    package var descriptor: Descriptor
    /// Why.
    package var reason: Reason
}

/// The result of a pull.
package struct PullReport: Sendable {
    /// What was asked for.
    package var reference: Reference
    /// What it led to.
    package var target: Descriptor
    /// Every piece, parents before children.
    package var contents: [PulledContent]
    /// What the image names and was not pulled.
    package var omissions: [PullOmission]
    /// How long it took altogether.
    package var duration: Duration
}
