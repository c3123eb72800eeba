/// An error as the OCI distribution specification ("Error codes") has a registry report it.
public struct DistributionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of error it is, for programs.
    public var code: DistributionErrorCode
    /// What is wrong, for people.
    public var message: String
    /// Anything more, nil when there is nothing.
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
