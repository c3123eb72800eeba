import ContentStore
import GRPCCore
import NIOConcurrencyHelpers
import SwiftProtobuf

/// containerd's `Write` call, message by message: each request is answered before the next is sent.
///
/// containerd ends an ingest's lock with the call, and hashes everything again when the ingest is reopened; so one
/// call lasts for a whole write.
final class IngestStream: Sendable {
    typealias Request = Containerd_Services_Content_V1_WriteContentRequest
    typealias Response = Containerd_Services_Content_V1_WriteContentResponse

    private struct AlreadyExists: Error {}

    /// Whoever waits for an answer, shared with the call, which must not keep the stream alive.
    private final class Exchange: Sendable {
        private struct State {
            var waiting: CheckedContinuation<Response, any Error>?
            var end: (any Error)?
        }

        private let state = NIOLockedValueBox(State())

        /// Returns why there will be no answer, or `nil` after having kept the continuation.
        func wait(_ continuation: CheckedContinuation<Response, any Error>) -> (any Error)? {
            state.withLockedValue { state in
                if state.end == nil { state.waiting = continuation }
                return state.end
            }
        }

        func answer(_ response: Response) { take()?.resume(returning: response) }

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

    private let exchange: Exchange
    private let requests: AsyncStream<Request>.Continuation
    private let call: Task<Void, Never>

    init(client: ContainerdClient, lease: String) {
        // Never holds more than one request, because the answer is awaited.
        let (stream, requests) = AsyncStream.makeStream(of: Request.self, bufferingPolicy: .bufferingOldest(2))
        let exchange = Exchange()
        self.requests = requests
        self.exchange = exchange
        self.call = Task {
            do {
                try await client.content.write(
                    metadata: client.metadata(lease: lease), options: client.streaming,
                    requestProducer: { writer in
                        for await request in stream { try await writer.write(request) }
                    },
                    onResponse: { response in
                        for try await message in response.messages { exchange.answer(message) }
                    })
                exchange.finish(ContentStoreError.unavailable("containerd ended the write"))
            } catch let error as RPCError where error.code == .alreadyExists {
                exchange.finish(AlreadyExists())
            } catch {
                exchange.finish(ContentStoreError(containerd: error))
            }
            requests.finish()
        }
    }

    deinit { call.cancel() }

    /// Sends one message and waits for its answer.
    ///
    /// - Returns: `nil` when containerd says that the content exists already, which also ends the call.
    func send(_ request: Request) async throws -> Response? {
        do {
            return try await withCheckedThrowingContinuation { continuation in
                if let end = exchange.wait(continuation) {
                    continuation.resume(throwing: end)
                } else {
                    requests.yield(request)
                }
            }
        } catch is AlreadyExists {
            return nil
        }
    }

    /// Ends the call; what was written stays in containerd until it is aborted or the lease ends.
    func cancel() async {
        requests.finish()
        call.cancel()
        await call.value
    }
}
