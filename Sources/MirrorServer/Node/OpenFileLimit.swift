#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The limit of open files of this process. Every connection and every file being sent takes one.
public enum OpenFileLimit {
    /// The soft limit, in open files; the largest number when the system does not tell.
    package static var current: UInt64 {
        var limit = rlimit()
        return get(&limit) ? UInt64(limit.rlim_cur) : .max
    }

    /// Raises the soft limit to `wanted`, or as near as the hard limit allows. Never lowers it.
    ///
    /// - Parameter wanted: open files; nil for as many as the hard limit allows, at most 1,048,576.
    /// - Returns: the soft limit after it, in open files.
    @discardableResult
    public static func raise(to wanted: UInt64? = nil) -> UInt64 {
        var limit = rlimit()
        guard get(&limit) else { return 0 }
        let target = min(rlim_t(wanted ?? 1_048_576), limit.rlim_max)
        guard target > limit.rlim_cur else { return UInt64(limit.rlim_cur) }
        var raised = limit
        raised.rlim_cur = target
        return UInt64(set(&raised) ? target : limit.rlim_cur)
    }

    private static func get(_ limit: inout rlimit) -> Bool {
        #if canImport(Glibc)
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
        #else
            getrlimit(RLIMIT_NOFILE, &limit) == 0
        #endif
    }

    private static func set(_ limit: inout rlimit) -> Bool {
        #if canImport(Glibc)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
        #else
            setrlimit(RLIMIT_NOFILE, &limit) == 0
        #endif
    }
}
