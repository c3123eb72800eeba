import ContentStore
import GRPCCore
import NIOConcurrencyHelpers
import SwiftProtobuf

/// containerd's `Write` call, message by message: each request waits for its response before the next is sent.
///
/// One call lasts for a whole write: containerd releases an ingest's lock with the call, and hashes everything again when
/// the ingest is reopened.
final class IngestStream: Sendable {
    typealias Request = Containerd_Services_Content_V1_WriteContentRequest
    typealias Response = Containerd_Services_Content_V1_WriteContentResponse

    private struct AlreadyExists: Error {}

    /// The caller that waits for a response; shared with the call, which must not keep the stream alive.
    private final class PendingResponse: Sendable {
        private struct State {
            var waiting: CheckedContinuation<Response, any Error>?
            var end: (any Error)?
        }

        private let state = NIOLockedValueBox(State())

        /// Keeps the continuation and returns `nil`, or returns why there will be no response.
        func wait(_ continuation: CheckedContinuation<Response, any Error>) -> (any Error)? {
            state.withLockedValue { state in
                if state.end == nil { state.waiting = continuation }
                return state.end
            }
        }

        func receive(_ response: Response) { take()?.resume(returning: response) }

        func finish(_ end: any Error) {
            state.withLockedValue { $0.end = end }
            take()?.resume(throwing: end)
        }

        private func take() -> CheckedContinuation<Response, any Error>? {
            state.withLockedValue { state in
                defer { state.waiting = nil }
                return state.waiting
            }
        }
    }

    private let response: PendingResponse
    private let requests: AsyncStream<Request>.Continuation
    private let call: Task<Void, Never>

    init(client: ContainerdClient, lease: String) {
        // Never holds more than one request, because the response is awaited.
        let (stream, requests) = AsyncStream.makeStream(of: Request.self, bufferingPolicy: .bufferingOldest(2))
        let response = PendingResponse()
        self.requests = requests
        self.response = response
        self.call = Task {
            do {
                try await client.content.write(
                    metadata: client.metadata(lease: lease), options: client.streaming,
                    requestProducer: { writer in
                        for await request in stream { try await writer.write(request) }
                    },
                    onResponse: { received in
                        for try await message in received.messages { response.receive(message) }
                    })
                response.finish(ContentStoreError.unavailable("containerd ended the write"))
            } catch let error as RPCError where error.code == .alreadyExists {
                response.finish(AlreadyExists())
            } catch {
                response.finish(ContentStoreError(containerd: error))
            }
            requests.finish()
        }
    }

    deinit { call.cancel() }

    /// Sends one message and waits for its response.
    ///
    /// - Returns: `nil` when containerd reports that the content exists already, which also ends the call.
    func send(_ request: Request) async throws -> Response? {
        do {
            return try await withCheckedThrowingContinuation { continuation in
                if let end = response.wait(continuation) {
                    continuation.resume(throwing: end)
                } else {
                    requests.yield(request)
                }
            }
        } catch is AlreadyExists {
            return nil
        }
    }

    /// Ends the call; the ingest stays in containerd until it is aborted or the lease ends.
    func cancel() async {
        requests.finish()
        call.cancel()
        await call.value
    }
}
