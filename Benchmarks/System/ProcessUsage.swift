import Foundation

/// What a process has used so far, as the kernel counts it.
struct ProcessUsage {
    /// Seconds on a processor, in user and kernel mode, of all threads that are alive.
    var cpuSeconds: Double
    /// Resident memory in MiB.
    var residentMiB: Double

    /// Reads the figures of some processes together.
    init(of processes: [Int32]) {
        cpuSeconds = 0
        residentMiB = 0
        for process in processes {
            cpuSeconds += Self.cpu(process)
            let pages = Machine.file("/proc/\(process)/statm").split(separator: " ").dropFirst().first
            residentMiB += Double(pages ?? "0").map { $0 * 4096 / 1_048_576 } ?? 0
        }
    }

    /// The processes whose parent is `parent`.
    static func children(of parent: Int32) -> [Int32] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { Int32($0) }.filter { process in
            // After the name in parentheses: state, then the parent.
            let fields = Machine.file("/proc/\(process)/stat").split(separator: ")").last?.split(separator: " ") ?? []
            return fields.count > 1 && Int32(fields[1]) == parent
        }
    }

    /// From the scheduler's own clock in nanoseconds where the kernel keeps one, else from ticks of 10 ms.
    private static func cpu(_ process: Int32) -> Double {
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? []
        var nanoseconds = 0.0
        for thread in threads {
            let text = Machine.file("/proc/\(process)/task/\(thread)/schedstat")
            nanoseconds += text.split(separator: " ").first.flatMap { Double($0) } ?? 0
        }
        if nanoseconds > 0 { return nanoseconds / 1e9 }
        let fields = Machine.file("/proc/\(process)/stat").split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
}
