import Foundation
import Logging
import Testing

@testable import SpegelCommands

@Suite struct LineLogHandlerTests {
    private final class Lines: LogSink, @unchecked Sendable {
        private let lock = NSLock()
        private var stored: [[UInt8]] = []

        func write(line: [UInt8]) {
            lock.withLock { stored.append(line) }
        }

        var all: [[UInt8]] { lock.withLock { stored } }
    }

    private func logger(_ lines: Lines, level: Logger.Level = .debug) -> Logger {
        Logger(label: "test") { _ in LineLogHandler(logLevel: level, sink: lines) }
    }

    private func object(_ line: [UInt8]) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
    }

    @Test func membersAndTheirOrder() throws {
        let lines = Lines()
        logger(lines).info("OCI event", metadata: ["type": "CREATE", "key": "docker.io/library/nginx:latest"])
        let line = try #require(lines.all.first)
        let text = String(decoding: line, as: UTF8.self)
        #expect(text.hasSuffix(#""msg":"OCI event","key":"docker.io/library/nginx:latest","type":"CREATE"}"# + "\n"))
        let object = try object(line)
        #expect(object["level"] as? String == "INFO")
        let source = try #require(object["source"] as? [String: Any])
        #expect(source["function"] as? String == "membersAndTheirOrder()")
        #expect((source["file"] as? String)?.hasSuffix("LineLogHandlerTests.swift") == true)
        #expect(source["line"] as? Int != nil)
        let time = try #require(object["time"] as? String)
        #expect(time.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z/) != nil)
    }

    @Test func everyCharacterSurvives() throws {
        let lines = Lines()
        let scalars = (Array(0...0x800) + Array(0x2000...0x2100)).compactMap(Unicode.Scalar.init)
        let nasty = String(String.UnicodeScalarView(scalars)) + "😀\"\\"
        logger(lines).error("\(nasty)", metadata: ["\(nasty.prefix(200))": "\(nasty)"])
        let line = try #require(lines.all.first)
        #expect(line.filter { $0 == 0x0a }.count == 1)
        let object = try object(line)
        #expect(object["msg"] as? String == nasty)
        #expect(object[String(nasty.prefix(200))] as? String == nasty)
    }

    @Test func valuesKeepTheirType() throws {
        let lines = Lines()
        logger(lines).info(
            "x",
            metadata: [
                "status": .stringConvertible(200), "big": .stringConvertible(UInt64.max),
                "ratio": .stringConvertible(0.5),
                "ok": .stringConvertible(true), "list": ["a", .stringConvertible(1)], "map": ["b": "c"],
                "bad": .stringConvertible(Double.nan), "time": "mine",
            ])
        let line = try #require(lines.all.first)
        let text = String(decoding: line, as: UTF8.self)
        #expect(
            text.hasSuffix(
                #""bad":"nan","big":18446744073709551615,"list":["a",1],"map":{"b":"c"},"ok":true,"ratio":0.5,"status":200,"time_":"mine"}"#
                    + "\n"))
        _ = try object(line)
    }

    @Test func longTextsAreCut() throws {
        let lines = Lines()
        logger(lines).info("\(String(repeating: "é", count: 1_000_000))")
        let line = try #require(lines.all.first)
        #expect(line.count < LineLogHandler.maximumText + 1000)
        #expect((try object(line)["msg"] as? String)?.hasSuffix("é…") == true)
    }

    @Test func levels() {
        let names = Logger.Level.allCases.map(LineLogHandler.name(of:))
        #expect(names == ["TRACE", "DEBUG", "INFO", "INFO", "WARN", "ERROR", "ERROR"])
        let lines = Lines()
        let quiet = logger(lines, level: .warning)
        quiet.info("no")
        quiet.warning("yes")
        #expect(lines.all.count == 1)
    }

    @Test func concurrentLinesStayWhole() async throws {
        var descriptors: [Int32] = [0, 0]
        #expect(pipe(&descriptors) == 0)
        let reading = FileHandle(fileDescriptor: descriptors[0], closeOnDealloc: true)
        let writing = descriptors[1]
        let logger = Logger(label: "test") { _ in
            LineLogHandler(logLevel: .debug, sink: FileDescriptorSink(descriptor: writing))
        }
        // On a thread of its own: the writers may have to wait for it on all of the pool's.
        let (parts, reader) = AsyncThrowingStream.makeStream(of: Data.self)
        Thread.detachNewThread {
            reader.yield(with: Result { try reading.readToEnd() ?? Data() })
            reader.finish()
        }
        await withTaskGroup(of: Void.self) { group in
            for writer in 0..<8 {
                group.addTask {
                    for number in 0..<200 {
                        logger.info("message", metadata: ["writer": "\(writer)", "number": "\(number)"])
                    }
                }
            }
        }
        close(writing)
        let lines = try await parts.reduce(into: Data()) { $0 += $1 }.split(separator: 0x0a)
        #expect(lines.count == 1600)
        for line in lines {
            _ = try object(Array(line))
        }
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000000007Z"), (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000007Z"), (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000007Z"),
        ] as [(Int64, String)])
    func timestamps(seconds: Int64, text: String) {
        #expect(Timestamp(seconds: seconds, nanoseconds: 7).description == text)
    }
}
