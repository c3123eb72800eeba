import Foundation
import OCIDistribution
import Testing

@Suite struct DistributionErrorTests {
    @Test func writesTheBody() {
        #expect(
            String(decoding: DistributionError(.blobUnknown).jsonBody, as: UTF8.self)
                == #"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#)
        let error = DistributionError(
            .manifestUnknown, message: "no \"peer\"", detail: ["attempts": 3, "all": [true, .null, "x\n"]])
        #expect(
            String(decoding: error.jsonBody, as: UTF8.self)
                == #"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \"peer\"","#
                + #""detail":{"all":[true,null,"x\n"],"attempts":3}}]}"#)
    }

    @Test(arguments: DistributionErrorCode.allCases) func everyCodeHasAStatusAndAMessage(code: DistributionErrorCode) {
        let error = DistributionError(code)
        #expect((400...599).contains(error.httpStatus))
        #expect(!error.message.isEmpty)
        #expect(code.rawValue.allSatisfy { $0.isUppercase || $0 == "_" })
        #expect(error.description == "\(error.httpStatus) \(code.rawValue): \(error.message)")
    }

    @Test func statusCanDiffer() {
        #expect(DistributionError(.unsupported).httpStatus == 405)
        #expect(DistributionError(.unsupported, httpStatus: 404).httpStatus == 404)
    }

    /// Every scalar up to U+FFFF and some beyond survive, read by another implementation.
    @Test func escapesEverything() throws {
        var text = String.UnicodeScalarView()
        for value in (0...0xFFFF as ClosedRange<UInt32>) {
            if let scalar = UnicodeScalar(value) { text.append(scalar) }
        }
        text.append("😀")
        let message = String(text)
        let error = DistributionError(.unknown, message: message, detail: .object([message: .string(message)]))
        let decoded = try JSONSerialization.jsonObject(with: Data(error.jsonBody)) as? [String: [[String: Any]]]
        let first = try #require(decoded?["errors"]?.first)
        #expect((first["message"] as? String).map { Array($0.utf8) } == Array(message.utf8))
        let detail = try #require(first["detail"] as? [String: String])
        #expect(detail.first.map { Array($0.value.utf8) } == Array(message.utf8))
        #expect(error.jsonBody.allSatisfy { $0 >= 0x20 })
    }

    @Test(arguments: 0..<3 as Range<UInt64>) func randomValuesAreReadByAnotherImplementation(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        func value(_ depth: Int) -> JSONValue {
            switch generator.below(depth > 3 ? 4 : 6) {
            case 0: .null
            case 1: .bool(generator.below(2) == 0)
            case 2: .integer(Int64.random(in: .min ... .max, using: &generator))
            case 3: .string(generator.text("a\"\\\u{0}\n\té/", upTo: 6))
            case 4: .array((0..<generator.below(4)).map { _ in value(depth + 1) })
            default:
                .object(Dictionary((0..<generator.below(4)).map { ("k\($0)\"", value(depth + 1)) }) { $1 })
            }
        }
        for _ in 0..<200 {
            let value = value(0)
            var bytes: [UInt8] = []
            value.write(to: &bytes)
            #expect(try JSONDecoder().decode(Echo.self, from: Data(bytes)).value == value, "seed \(seed)")
        }
    }

    private struct Echo: Decodable {
        let value: JSONValue

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if container.decodeNil() {
                value = .null
            } else if let bool = try? container.decode(Bool.self) {
                value = .bool(bool)
            } else if let integer = try? container.decode(Int64.self) {
                value = .integer(integer)
            } else if let string = try? container.decode(String.self) {
                value = .string(string)
            } else if let array = try? container.decode([Echo].self) {
                value = .array(array.map(\.value))
            } else {
                value = .object(try container.decode([String: Echo].self).mapValues(\.value))
            }
        }
    }
}
