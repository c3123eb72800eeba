import Foundation

/// The machine a figure was measured on.
enum Machine {
    /// Processor model, number of cores, kernel, and whether the build is optimised.
    static var description: String {
        let model =
            file("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
        let kernel = file("/proc/sys/kernel/osrelease").trimmingCharacters(in: .whitespacesAndNewlines)
        #if DEBUG
            let build = "DEBUG BUILD: figures mean nothing"
        #else
            let build = "release build"
        #endif
        return "\(model), \(ProcessInfo.processInfo.activeProcessorCount) cores, Linux \(kernel), \(build)"
    }

    static func file(_ path: String) -> String {
        (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }
}
