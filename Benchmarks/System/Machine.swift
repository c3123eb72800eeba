import Foundation

/// The machine a figure was measured on.
struct Machine: Codable {
    var processor: String
    var cores: Int
    var memoryGiB: Double
    var kernel: String
    var build: String
    /// The average number of runnable threads in the minute before the run.
    var loadBefore: Double

    /// Reads what this machine says of itself.
    static func current() -> Machine {
        let model =
            file("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
        return Machine(
            processor: model, cores: ProcessInfo.processInfo.activeProcessorCount,
            memoryGiB: Double(ProcessInfo.processInfo.physicalMemory) / 1_073_741_824,
            kernel: file("/proc/sys/kernel/osrelease").trimmingCharacters(in: .whitespacesAndNewlines),
            build: isDebugBuild ? "debug" : "release",
            loadBefore: file("/proc/loadavg").split(separator: " ").first.flatMap { Double($0) } ?? 0)
    }

    #if DEBUG
        static let isDebugBuild = true
    #else
        static let isDebugBuild = false
    #endif

    var description: String {
        "\(processor), \(cores) cores, \(memoryGiB.text(0)) GiB, Linux \(kernel), load before \(loadBefore.text(1))"
    }

    /// What makes the figures less than they seem; nil if nothing does.
    var warning: String? {
        if build == "debug" { return "DEBUG BUILD: it works, but the figures mean nothing; use -c release" }
        // A core's worth of other work is in every figure.
        if loadBefore > 1 { return "the machine was busy (load \(loadBefore.text(1))): figures are noisy" }
        return nil
    }

    static func file(_ path: String) -> String {
        (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }
}
