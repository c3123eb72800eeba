/// An error as the OCI distribution specification ("Error codes") has a registry report it.
public struct DistributionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of error it is, for programs.
    public var code: DistributionErrorCode
    /// What is wrong, for a human reader.
    public var message: String
    /// Further information for programs; nil when there is none.
    public var detail: JSONValue?
    /// The HTTP status it is reported with.
    public var httpStatus: Int

    /// Makes an error; message and status default to those of the code.
    public init(
        _ code: DistributionErrorCode, message: String? = nil, detail: JSONValue? = nil, httpStatus: Int? = nil
    ) {
        self.code = code
        self.message = message ?? code.defaultMessage
        self.detail = detail
        self.httpStatus = httpStatus ?? code.httpStatus
    }

    /// The body `{"errors":[{"code":…,"message":…,"detail":…}]}`, without `detail` when there is none.
    public var jsonBody: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(64 + code.rawValue.utf8.count + message.utf8.count)
        bytes += #"{"errors":[{"code":""#.utf8
        bytes += code.rawValue.utf8
        bytes += #"","message":"#.utf8
        JSONValue.write(message, to: &bytes)
        if let detail {
            bytes += #","detail":"#.utf8
            detail.write(to: &bytes)
        }
        bytes += "}]}".utf8
        return bytes
    }

    /// Status, code and message.
    public var description: String { "\(httpStatus) \(code.rawValue): \(message)" }
}

/// The error codes of the OCI distribution specification ("Error codes"), and those of Docker's registry API that it
/// left out but clients know.
public enum DistributionErrorCode: String, Sendable, Hashable, CaseIterable {
    /// The blob is not here.
    case blobUnknown = "BLOB_UNKNOWN"
    /// An upload is invalid.
    case blobUploadInvalid = "BLOB_UPLOAD_INVALID"
    /// An upload is not known.
    case blobUploadUnknown = "BLOB_UPLOAD_UNKNOWN"
    /// The digest is malformed or does not match.
    case digestInvalid = "DIGEST_INVALID"
    /// A manifest refers to a manifest or blob that is not known.
    case manifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
    /// The manifest is invalid.
    case manifestInvalid = "MANIFEST_INVALID"
    /// The manifest is not here.
    case manifestUnknown = "MANIFEST_UNKNOWN"
    /// The name of the repository or of the registry is invalid.
    case nameInvalid = "NAME_INVALID"
    /// The repository is not known.
    case nameUnknown = "NAME_UNKNOWN"
    /// The size does not match.
    case sizeInvalid = "SIZE_INVALID"
    /// Credentials are required.
    case unauthorized = "UNAUTHORIZED"
    /// Access is denied.
    case denied = "DENIED"
    /// The operation is not supported.
    case unsupported = "UNSUPPORTED"
    /// Too many requests.
    case tooManyRequests = "TOOMANYREQUESTS"
    /// The tag is invalid (Docker).
    case tagInvalid = "TAG_INVALID"
    /// The range is invalid or cannot be satisfied (Docker).
    case rangeInvalid = "RANGE_INVALID"
    /// The service cannot answer now (Docker).
    case unavailable = "UNAVAILABLE"
    /// Anything else (Docker).
    case unknown = "UNKNOWN"

    /// The HTTP status that fits the code best.
    public var httpStatus: Int {
        switch self {
        case .blobUnknown, .blobUploadUnknown, .manifestBlobUnknown, .manifestUnknown, .nameUnknown: 404
        case .blobUploadInvalid, .digestInvalid, .manifestInvalid, .nameInvalid, .sizeInvalid, .tagInvalid,
            .rangeInvalid:
            400
        case .unauthorized: 401
        case .denied: 403
        case .unsupported: 405
        case .tooManyRequests: 429
        case .unavailable: 503
        case .unknown: 500
        }
    }

    /// The message when the error has none of its own.
    public var defaultMessage: String {
        switch self {
        case .blobUnknown: "blob unknown to registry"
        case .blobUploadInvalid: "blob upload invalid"
        case .blobUploadUnknown: "blob upload unknown to registry"
        case .digestInvalid: "provided digest is invalid or did not match the content"
        case .manifestBlobUnknown: "manifest references a manifest or blob unknown to registry"
        case .manifestInvalid: "manifest invalid"
        case .manifestUnknown: "manifest unknown to registry"
        case .nameInvalid: "invalid repository name"
        case .nameUnknown: "repository name not known to registry"
        case .sizeInvalid: "provided length did not match content length"
        case .unauthorized: "authentication required"
        case .denied: "requested access to the resource is denied"
        case .unsupported: "the operation is unsupported"
        case .tooManyRequests: "too many requests"
        case .tagInvalid: "tag invalid"
        case .rangeInvalid: "invalid range"
        case .unavailable: "service unavailable"
        case .unknown: "unknown error"
        }
    }
}

/// A JSON value (RFC 8259), for the `detail` of an error.
public enum JSONValue: Sendable, Hashable {
    /// `null`
    case null
    /// `true` or `false`
    case bool(Bool)
    /// A whole number.
    case integer(Int64)
    /// A string.
    case string(String)
    /// A list.
    case array([JSONValue])
    /// An object; its keys are written in order.
    case object([String: JSONValue])

    /// Appends the value as compact JSON in UTF-8.
    public func write(to bytes: inout [UInt8]) {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .integer(let value): bytes += String(value).utf8
        case .string(let value): JSONValue.write(value, to: &bytes)
        case .array(let values):
            bytes.append(0x5B)
            for (index, value) in values.enumerated() {
                if index > 0 { bytes.append(0x2C) }
                value.write(to: &bytes)
            }
            bytes.append(0x5D)
        case .object(let fields):
            bytes.append(0x7B)
            for (index, field) in fields.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { bytes.append(0x2C) }
                JSONValue.write(field.key, to: &bytes)
                bytes.append(0x3A)
                field.value.write(to: &bytes)
            }
            bytes.append(0x7D)
        }
    }

    /// Appends a JSON string with its quotes.
    static func write(_ text: String, to bytes: inout [UInt8]) {
        bytes.append(0x22)
        for byte in text.utf8 {
            switch byte {
            case 0x22: bytes += [0x5C, 0x22]
            case 0x5C: bytes += [0x5C, 0x5C]
            case 0x0A: bytes += [0x5C, 0x6E]
            case 0x0D: bytes += [0x5C, 0x72]
            case 0x09: bytes += [0x5C, 0x74]
            case 0..<0x20, 0x7F: bytes += [0x5C, 0x75, 0x30, 0x30, hexDigit(byte >> 4), hexDigit(byte & 0xF)]
            default: bytes.append(byte)
            }
        }
        bytes.append(0x22)
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    /// A whole number.
    public init(integerLiteral value: Int64) { self = .integer(value) }
    /// A Boolean.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// A list.
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// An object; of two equal keys the later one stays.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(elements) { _, last in last })
    }
}
