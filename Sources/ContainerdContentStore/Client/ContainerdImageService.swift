import GRPCCore
import OCIDistribution
import SwiftProtobuf

/// An image record as containerd has it: a literal name and a target.
package struct ContainerdImage: Sendable, Hashable {
    /// The name, which need not be a reference.
    package var name: String
    /// Its target.
    package var target: Descriptor

    /// Makes a record.
    package init(name: String, target: Descriptor) {
        self.name = name
        self.target = target
    }
}

extension ContainerdClient {
    private var images: Containerd_Services_Images_V1_Images.Client<Transport> { .init(wrapping: grpc) }

    /// Lists the namespace's images, and the names of those whose target cannot be parsed.
    package func listImages() async throws -> (images: [ContainerdImage], unreadable: [String]) {
        var options = unary
        options.timeout = callTimeout * 3
        let response = try await images.list(.init(), metadata: metadata(), options: options)
        var result: [ContainerdImage] = []
        var unreadable: [String] = []
        result.reserveCapacity(response.images.count)
        for image in response.images {
            if let image = ContainerdImage(image) { result.append(image) } else { unreadable.append(image.name) }
        }
        return (result, unreadable)
    }

    /// Looks an image up by its literal name.
    package func image(named name: String) async throws -> ContainerdImage? {
        try await nilIfNotFound {
            try await images.get(.with { $0.name = name }, metadata: metadata(), options: unary)
        }.flatMap { ContainerdImage($0.image) }
    }

    /// Creates or updates an image record.
    package func setImage(_ image: ContainerdImage) async throws {
        let record = Containerd_Services_Images_V1_Image.with {
            $0.name = image.name
            $0.target = .with {
                $0.mediaType = image.target.mediaType.rawValue
                $0.digest = image.target.digest.description
                $0.size = image.target.size
            }
        }
        do {
            _ = try await images.create(.with { $0.image = record }, metadata: metadata(), options: unary)
        } catch let error as RPCError where error.code == .alreadyExists {
            let request = Containerd_Services_Images_V1_UpdateImageRequest.with {
                $0.image = record
                $0.updateMask.paths = ["target"]
            }
            _ = try await images.update(request, metadata: metadata(), options: unary)
        }
    }

    /// Removes a name, if it exists.
    ///
    /// - Parameter synchronously: waits until garbage collection has run.
    package func deleteImage(named name: String, synchronously: Bool = false) async throws {
        _ = try await nilIfNotFound {
            try await images.delete(
                .with {
                    $0.name = name
                    $0.sync = synchronously
                }, metadata: metadata(), options: unary)
        }
    }
}

extension ContainerdImage {
    init?(_ image: Containerd_Services_Images_V1_Image) {
        guard !image.name.isEmpty, image.target.size >= 0, let digest = Digest(image.target.digest) else {
            return nil
        }
        self.init(
            name: image.name,
            target: Descriptor(
                mediaType: MediaType(image.target.mediaType), digest: digest, size: image.target.size))
    }
}

extension ContainerdClient {
    /// Receives changes of images and content in the client's namespace until containerd ends the connection.
    ///
    /// containerd queues events for a slow subscriber without a limit, so `handle` must return quickly.
    ///
    /// - Throws: the reason for the end.
    package func subscribe(_ handle: @Sendable @escaping (ContainerdEvent) -> Void) async throws {
        let namespace = self.namespace
        let request = Containerd_Services_Events_V1_SubscribeRequest.with {
            $0.filters = ["images", "content"].map { #"namespace=="\#(namespace)",topic~="^/\#($0)/""# }
        }
        let events = Containerd_Services_Events_V1_Events.Client(wrapping: grpc)
        try await events.subscribe(request, metadata: metadata(), options: streaming) { response in
            for try await envelope in response.messages {
                // The namespace header does not limit a subscription, and old versions ignore filters.
                guard envelope.namespace == namespace else { continue }
                if let event = ContainerdEvent(topic: envelope.topic, payload: envelope.event.value) {
                    handle(event)
                }
            }
        }
        throw RPCError(code: .unavailable, message: "containerd ended the subscription to events")
    }
}

/// A change that containerd reports.
package enum ContainerdEvent: Sendable, Hashable {
    /// An image was created or changed.
    case imageChanged(String)
    /// An image was removed.
    case imageRemoved(String)
    /// Content was committed; containerd 2.1 and later.
    case contentCreated(String)
    /// Content was removed by a client; garbage collection sends no event.
    case contentRemoved(String)
    /// An event that cannot be parsed.
    case unreadable(topic: String)

    /// Parses an event; `nil` for other topics.
    ///
    /// The topic determines the event: the type in the envelope is `containerd.services.images.v1.ImageCreate` or
    /// `containerd.events.ImageCreate`, with or without a prefix, depending on containerd's version.
    init?(topic: String, payload: some SwiftProtobufContiguousBytes) {
        do {
            switch topic {
            case "/images/create":
                self = .imageChanged(try Containerd_Services_Images_V1_ImageCreate(serializedBytes: payload).name)
            case "/images/update":
                self = .imageChanged(try Containerd_Services_Images_V1_ImageUpdate(serializedBytes: payload).name)
            case "/images/delete":
                self = .imageRemoved(try Containerd_Services_Images_V1_ImageDelete(serializedBytes: payload).name)
            case "/content/create":
                self = .contentCreated(try Containerd_Events_ContentCreate(serializedBytes: payload).digest)
            case "/content/delete":
                self = .contentRemoved(try Containerd_Events_ContentDelete(serializedBytes: payload).digest)
            default:
                return nil
            }
        } catch {
            self = .unreadable(topic: topic)
        }
    }
}
