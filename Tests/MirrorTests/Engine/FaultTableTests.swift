import ContentStore
import Foundation
import NIOCore
import OCIDistribution
import PeerRouting
import TestSupport
import Testing

@testable import MirrorServer

/// Tests that need much of the machine; they run one after the other.
@Suite(.serialized) struct HeavyTests {}

extension HeavyTests {
    /// Every fault of a peer, for every kind of content, with another good peer and without: what the client sees.
    ///
    /// The table is printed. `SPEGEL_TEST_FULL=1` makes all large blobs 200 MB, not only those of the main faults.
    @Suite struct FaultTable {
        enum Kind: String, CaseIterable, Sendable {
            case manifest, small, large, range

            var name: String {
                switch self {
                case .manifest: "manifest"
                case .small: "small blob"
                case .large: "large blob"
                case .range: "range"
                }
            }
        }

        struct Row: Sendable {
            var fault: Fault
            var kind: Kind
            var hasGood: Bool
            var outcome: Outcome
            /// What the next request sees, where the first was broken.
            var again: Outcome?
            var seconds: Double
            var bytes: Int
            /// What the node says and counts of it.
            var reason: String
        }

        static let manifest = SharedBytes.manifest(1)
        static let small = SharedBytes(count: 200_000, seed: 1)
        static let medium = SharedBytes(count: 6_000_000, seed: 2)
        static let huge = SharedBytes(count: 200_000_000, seed: 3)

        static func content(_ kind: Kind, _ fault: Fault) -> SharedBytes {
            switch kind {
            case .manifest: manifest
            case .small: small
            case .large:
                Project.isFullScale
                    || [.none, .closedInBody, .resetInBody, .stallInBody, .wrongLastByte].contains(fault)
                    ? huge : medium
            case .range: medium
            }
        }

        @Test(.timeLimit(.minutes(15)))
        func everyFault() async throws {
            _ = Self.huge
            var cases: [(Fault, Kind, Bool)] = []
            for fault in Fault.allCases {
                for kind in Kind.allCases { for hasGood in [true, false] { cases.append((fault, kind, hasGood)) } }
            }
            let rows = try await withThrowingTaskGroup(of: Row.self) { group in
                var rows: [Row] = []
                var next = cases.makeIterator()
                // Most of the time is waiting for deadlines, so several at a time.
                for _ in 0..<12 {
                    if let (fault, kind, hasGood) = next.next() {
                        group.addTask { try await Self.run(fault, kind, hasGood: hasGood) }
                    }
                }
                while let row = try await group.next() {
                    rows.append(row)
                    if let (fault, kind, hasGood) = next.next() {
                        group.addTask { try await Self.run(fault, kind, hasGood: hasGood) }
                    }
                }
                return rows
            }
            printTable(rows)
            for row in rows { check(row) }
        }

        private static func run(_ fault: Fault, _ kind: Kind, hasGood: Bool) async throws -> Row {
            let bytes = content(kind, fault)
            let type = kind == .manifest ? MediaType.imageManifest.rawValue : "application/octet-stream"
            let bad = try await FaultyPeer.start(fault: fault)
            bad.serve(bytes, type: type)
            let network = InMemoryPeerNetwork()
            try await advertise(["\(bytes.digest)"], of: peer(1, [bad.address]), in: network)
            var good: FaultyPeer?
            if hasGood {
                let server = try await FaultyPeer.start(port: bad.port)
                server.serve(bytes, type: type)
                try await advertise(["\(bytes.digest)"], of: peer(2, [server.address]), in: network)
                good = server
            }
            let hasAnswer = hasGood || isHarmless(fault, kind)
            let node = try await Node.start(network: network, peerPort: bad.port) {
                // Most of the time is waiting for these. Where a good answer has to come, they leave it the time for
                // which a thread or the whole machine may stand still.
                $0.peers.firstByteTimeout = .seconds(hasAnswer ? 20 : 2)
                $0.peers.progressTimeout = .seconds(hasAnswer ? 10 : 1)
                guard !hasAnswer else { return }
                // An answer that is too late must not be in time because the node's clock stood still.
                $0.stallAllowance = .seconds(10)
                $0.resolveTimeout = .seconds(20)
                $0.manifestTimeout = .seconds(20)
                $0.blobTimeout = .seconds(50)
            }
            let path = kind == .manifest ? manifestPath(bytes.digest) : blobPath(bytes.digest)
            let (first, last) = (bytes.count / 3, bytes.count / 3 * 2)
            let expected = kind == .range ? bytes.slice(first..<(last + 1)) : bytes.buffer
            let fields = kind == .range ? "Range: bytes=\(first)-\(last)\r\n" : ""
            let clock = ContinuousClock()
            let start = clock.now
            let client = try await VerifyingClient.connect(port: node.port)
            let outcome = try await client.get(path, fields: fields, expected: expected)
            let reason = try await client.refusal + " " + node.failures
            await client.close()
            let seconds = (clock.now - start) / .seconds(1)
            var again: Outcome?
            switch outcome {
            case .broken, .brokenWrong:
                again = try await VerifyingClient.get(port: node.port, path, fields: fields, expected: expected)
            case .right, .wrong, .refused: break
            }
            await node.stop()
            await bad.kill()
            await good?.kill()
            return Row(
                fault: fault, kind: kind, hasGood: hasGood, outcome: outcome, again: again, seconds: seconds,
                bytes: expected.readableBytes, reason: reason)
        }

        /// Faults that leave the answer usable.
        private static func isHarmless(_ fault: Fault, _ kind: Kind) -> Bool {
            switch fault {
            case .none, .late, .tooMuch, .ignoresRange: true
            // What a blob is called does not matter; its bytes are checked.
            case .wrongType: kind != .manifest
            default: false
            }
        }

        /// Wrong bytes within a part of a blob cannot be known from right ones.
        private func isUnverifiable(_ row: Row) -> Bool {
            row.kind == .range && [.wrongByte, .wrongLastByte, .truncated].contains(row.fault)
        }

        /// Wrong content of more than is held: it ends broken, and the next try is right.
        private func isFoundOutLate(_ row: Row) -> Bool {
            row.kind == .large && [.wrongByte, .wrongLastByte, .truncated, .wrongLengthTooLong].contains(row.fault)
        }

        private func check(_ row: Row) {
            let name: Comment =
                "\(row.fault) × \(row.kind.name), good peer: \(row.hasGood): \(row.outcome) \(row.reason)"
            if isUnverifiable(row) {
                // Passed on, and counted as not checked (see the engine's tests).
                return
            }
            if case .wrong = row.outcome { Issue.record("a complete wrong body: \(name)") }
            let status = row.kind == .range ? 206 : 200
            if row.hasGood, isFoundOutLate(row) {
                switch row.outcome {
                case .broken, .brokenWrong: #expect(row.again == .right(status: status), name)
                // The good peer was faster.
                case .right: break
                default: Issue.record(name)
                }
            } else if row.hasGood || Self.isHarmless(row.fault, row.kind) {
                #expect(row.outcome == .right(status: status), name)
            } else {
                switch row.outcome {
                case .refused(status: 404), .broken: break
                // Each time it is asked anew it begins with a good part, so that all may have come in the end.
                case .right where row.fault == .trickle: break
                case .brokenWrong: #expect(isFoundOutLate(row), name)
                default: Issue.record(name)
                }
            }
        }

        private func printTable(_ rows: [Row]) {
            var lines = [
                "",
                "what the client sees (a good peer too | none); broken: ended early, broken*: with wrong bytes in it",
            ]
            let header = Kind.allCases.map { $0.name.padding(toLength: 24, withPad: " ", startingAt: 0) }.joined()
            lines.append("fault".padding(toLength: 20, withPad: " ", startingAt: 0) + header)
            for fault in Fault.allCases {
                var line = fault.rawValue.padding(toLength: 20, withPad: " ", startingAt: 0)
                for kind in Kind.allCases {
                    let cells = [true, false].map { hasGood -> String in
                        guard
                            let row = rows.first(where: {
                                $0.fault == fault && $0.kind == kind && $0.hasGood == hasGood
                            })
                        else { return "-" }
                        if isUnverifiable(row), case .wrong = row.outcome { return "unchecked" }
                        return row.again.map { "\(row.outcome)→\($0)" } ?? "\(row.outcome)"
                    }
                    line += "\(cells[0]) | \(cells[1])".padding(toLength: 24, withPad: " ", startingAt: 0)
                }
                lines.append(line)
            }
            for row in rows.sorted(by: { $0.seconds > $1.seconds }).prefix(5) {
                lines.append(
                    "\(String(format: "%.1f", row.seconds)) s: \(row.fault) × \(row.kind.name), good peer: \(row.hasGood)"
                )
            }
            let total = rows.reduce(0) { $0 + $1.bytes }
            lines.append(
                "\(rows.count) cases, \(total / 1_000_000) MB asked for")
            print(lines.joined(separator: "\n"))
        }
    }
}
