#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The process metrics of the system, under the names Prometheus clients use everywhere. Read from `/proc`; where there
/// is none the values are zero.
public enum ProcessMetrics {
    /// Adds them to a registry. The values are read when the registry is.
    public static func register(in registry: PrometheusRegistry) {
        for (name, help) in descriptions { registry.describe(name, help: help) }
        registry.counter("process_cpu_seconds_total") { cpuSeconds }
        registry.gauge("process_resident_memory_bytes") { Double(residentBytes) }
        registry.gauge("process_virtual_memory_bytes") { Double(memoryPages(field: 0)) * Double(getpagesize()) }
        registry.gauge("process_open_fds") { Double(openFiles) }
        registry.gauge("process_max_fds") { Double(fileLimit) }
        registry.gauge("process_threads") { Double(statField(19) ?? 0) }
        let start = startTime
        registry.gauge("process_start_time_seconds") { start }
    }

    private static let descriptions = [
        "process_cpu_seconds_total": "Total user and system CPU time spent.",
        "process_resident_memory_bytes": "Resident memory size.",
        "process_virtual_memory_bytes": "Virtual memory size.",
        "process_open_fds": "Number of open file descriptors.",
        "process_max_fds": "Maximum number of open file descriptors.",
        "process_start_time_seconds": "Start time of the process since the Unix epoch.",
        "process_threads": "Number of threads.",
    ]

    /// Bytes of memory that are resident now; 0 where the system does not say.
    package static var residentBytes: Int { memoryPages(field: 1) * Int(getpagesize()) }

    /// CPU time in user and kernel mode of all threads so far.
    package static var cpuSeconds: Double {
        var usage = rusage()
        #if canImport(Glibc)
            getrusage(RUSAGE_SELF.rawValue, &usage)
        #else
            getrusage(RUSAGE_SELF, &usage)
        #endif
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1_000_000 }
        return seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    private static var fileLimit: UInt64 {
        var limit = rlimit()
        #if canImport(Glibc)
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        #else
            getrlimit(RLIMIT_NOFILE, &limit)
        #endif
        return UInt64(limit.rlim_cur)
    }

    private static var openFiles: Int {
        guard let directory = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        // Without ".", ".." and the directory being read.
        return max(0, count - 3)
    }

    /// Seconds since 1970 at which the process began.
    private static var startTime: Double {
        guard let ticks = statField(21), let uptime = readFile("/proc/uptime").split(separator: " ").first,
            let up = Double(uptime)
        else { return WallClock.secondsSince1970 }
        return WallClock.secondsSince1970 - up + Double(ticks) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    private static func memoryPages(field: Int) -> Int {
        let fields = readFile("/proc/self/statm").split(separator: " ")
        return fields.count > field ? Int(fields[field]) ?? 0 : 0
    }

    /// A field of `/proc/self/stat`, counted from 0 as in proc(5) less one.
    private static func statField(_ index: Int) -> Int? {
        let text = readFile("/proc/self/stat")
        // The second field is the name in parentheses and may hold blanks.
        guard let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        return fields.count > index - 2 && index >= 2 ? Int(fields[index - 2]) : nil
    }

    private static func readFile(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(descriptor, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : ""
    }
}

/// The time of day.
package enum WallClock {
    /// Seconds since 1970-01-01 00:00 UTC.
    package static var secondsSince1970: Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1_000_000_000
    }
}
