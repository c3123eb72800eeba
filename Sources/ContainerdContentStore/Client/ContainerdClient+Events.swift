#if Containerd
    import GRPCCore
    import SwiftProtobuf

    extension ContainerdClient {
        /// Hears changes of images and content in the client's namespace until containerd ends the connection.
        ///
        /// containerd queues events for a slow subscriber without bound, so `handle` must be quick.
        ///
        /// - Throws: the reason for the end; it never returns otherwise than by throwing or cancellation.
        package func subscribe(_ handle: @Sendable @escaping (ContainerdEvent) -> Void) async throws {
            let namespace = self.namespace
            let request = Containerd_Services_Events_V1_SubscribeRequest.with {
                $0.filters = ["images", "content"].map { #"namespace=="\#(namespace)",topic~="^/\#($0)/""# }
            }
            let events = Containerd_Services_Events_V1_Events.Client(wrapping: grpc)
            try await events.subscribe(request, metadata: metadata(), options: streaming) { response in
                for try await envelope in response.messages {
                    // The namespace header does not limit a subscription, and a filter is only a wish.
                    guard envelope.namespace == namespace else { continue }
                    if let event = ContainerdEvent(topic: envelope.topic, payload: envelope.event.value) {
                        handle(event)
                    }
                }
            }
            throw RPCError(code: .unavailable, message: "containerd ended the subscription to events")
        }
    }

    /// A change that containerd tells.
    package enum ContainerdEvent: Sendable, Hashable {
        /// An image was created or changed.
        case imageChanged(String)
        /// An image was removed.
        case imageRemoved(String)
        /// Content was committed; containerd 2.1 and later.
        case contentCreated(String)
        /// Content was removed at a client's request; garbage collection does not tell.
        case contentRemoved(String)
        /// Something changed, but what it was cannot be understood.
        case unreadable(topic: String)

        /// Reads an event; `nil` for one that is of no interest.
        ///
        /// The topic decides: the type in the envelope is `containerd.services.images.v1.ImageCreate` or
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
#endif
