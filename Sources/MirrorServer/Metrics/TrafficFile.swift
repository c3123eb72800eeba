import Logging
import NIOConcurrencyHelpers

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#elseif canImport(Darwin)
    import Darwin
#endif

/// Keeps the counts of a ``TrafficLedger`` in a file, so that they survive restarts: read once, written every minute in which
/// they changed and at the end.
final class TrafficFile: Sendable {
    /// The name of the file in the data directory.
    static let name = "traffic.json"
    /// Largest file that is read; a larger one counts as damaged.
    static let byteLimit = 4 << 20
    /// Time between two writes: what a crash loses at most.
    static let interval: Duration = .seconds(60)

    private struct State {
        var task: Task<Void, Never>?
        var writtenChanges: UInt64 = 0
        /// Whether a failure to write was logged since the last success.
        var isFailing = false
    }

    let path: String
    private let logger: Logger
    private let state = NIOLockedValueBox(State())

    /// - Parameter directory: an existing directory.
    init(directory: String, logger: Logger) {
        path = directory + (directory.hasSuffix("/") ? "" : "/") + Self.name
        self.logger = logger
    }

    // MARK: Reading

    /// What an earlier process counted; nil if there is no file. A damaged one is logged, and the next write replaces it.
    func read() -> TrafficAccounts.Kept? {
        guard let bytes = readBytes() else { return nil }
        let reason: String
        do {
            guard bytes.count <= Self.byteLimit else {
                throw Damage(reason: "it has more than \(Self.byteLimit) bytes")
            }
            let kept = try JSONDecoder().decode(TrafficAccounts.Kept.self, from: Data(bytes))
            guard kept.version == TrafficAccounts.Kept.currentVersion else {
                throw Damage(reason: "it has the form \(kept.version), not \(TrafficAccounts.Kept.currentVersion)")
            }
            return kept
        } catch let damage as Damage {
            reason = damage.reason
        } catch {
            reason = "it is not the JSON that is expected"
        }
        logger.warning(
            "the counts of earlier runs cannot be read; counting starts anew, and the file is replaced",
            metadata: ["path": "\(path)", "reason": "\(reason)"])
        return nil
    }

    private struct Damage: Error {
        var reason: String
    }

    /// At most one byte more than is allowed; nil without a file.
    private func readBytes() -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno != ENOENT {
                logger.warning("the counts of earlier runs cannot be read", metadata: ["error": "\(failure("open"))"])
            }
            return nil
        }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= Self.byteLimit {
            let count = Self.systemRead(descriptor, &chunk, min(chunk.count, Self.byteLimit + 1 - bytes.count))
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return bytes
    }

    // MARK: Writing

    /// Writes from now on what `ledger` counts.
    func start(_ ledger: TrafficLedger) {
        let task = Task { [weak self] in
            while !Task.isCancelled {
                try? await Task.sleep(for: Self.interval)
                self?.write(ledger)
            }
        }
        state.withLockedValue { $0.task = task }
    }

    /// Stops, after a last write.
    func shutdown(_ ledger: TrafficLedger) async {
        let task = state.withLockedValue { $0.task }
        task?.cancel()
        await task?.value
        write(ledger)
    }

    /// Writes the counts if they have changed: into a new file that takes the place of the old one.
    func write(_ ledger: TrafficLedger) {
        let (kept, changes) = ledger.kept
        guard state.withLockedValue({ $0.writtenChanges }) != changes else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            try replace(with: Array(try encoder.encode(kept)))
            state.withLockedValue { state in
                state.writtenChanges = changes
                state.isFailing = false
            }
        } catch {
            let isFirst = state.withLockedValue { state in
                defer { state.isFailing = true }
                return !state.isFailing
            }
            if isFirst {
                logger.warning("the counts cannot be kept", metadata: ["error": "\(error)"])
            }
        }
    }

    private struct WriteError: Error, CustomStringConvertible {
        var description: String
    }

    private func replace(with bytes: [UInt8]) throws {
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw failure("open") }
        var isComplete = false
        defer { if !isComplete { unlink(temporary) } }
        do {
            defer { close(descriptor) }
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Self.systemWrite(descriptor, $0.baseAddress, $0.count) }
                if count > 0 { rest = rest.dropFirst(count) } else if errno != EINTR { throw failure("write") }
            }
            guard fsync(descriptor) == 0 else { throw failure("fsync") }
        }
        guard rename(temporary, path) == 0 else { throw failure("rename") }
        isComplete = true
    }

    private func failure(_ call: String) -> WriteError {
        WriteError(description: "\(call) \(path): \(String(cString: strerror(errno)))")
    }

    #if canImport(Glibc)
        private static let (systemRead, systemWrite) = (Glibc.read, Glibc.write)
    #elseif canImport(Musl)
        private static let (systemRead, systemWrite) = (Musl.read, Musl.write)
    #else
        private static let (systemRead, systemWrite) = (Darwin.read, Darwin.write)
    #endif
}
