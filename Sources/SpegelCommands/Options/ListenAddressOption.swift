import MirrorServer

/// Reads addresses to listen on.
package enum ListenAddressOption {
    /// The transform of the option.
    @Sendable package static func parse(_ text: String) throws -> ListenAddress {
        do {
            return try ListenAddress(parsing: text)
        } catch {
            throw OptionError("[HOST]:PORT such as :5000, 127.0.0.1:5000 or [::1]:5000 (\(error.reason))")
        }
    }
}
