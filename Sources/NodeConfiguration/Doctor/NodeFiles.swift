import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reads what the doctor wants to know of this node's files.
package enum NodeFiles {
    /// Whether a directory can be listed, and perhaps written.
    package static func access(_ path: String, writing: Bool = false) -> DoctorEvidence.Access {
        var status = stat()
        guard stat(path, &status) == 0 else {
            return errno == ENOENT || errno == ENOTDIR ? .missing : .denied(String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { return .denied("is no directory") }
        guard Glibc.access(path, writing ? R_OK | W_OK | X_OK : R_OK | X_OK) == 0 else {
            return .denied(String(cString: strerror(errno)))
        }
        return .usable
    }

    /// The registries' directories of a registry configuration, at most ``hostsLimit``.
    package static func hosts(in directory: String) -> [DoctorEvidence.HostsEntry] {
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
        return names.prefix(hostsLimit).compactMap { name in
            guard !name.hasPrefix("_backup"), !name.hasPrefix(".") else { return nil }
            let path = "\(directory)/\(name)"
            guard case .usable = access(path) else {
                guard case .denied(let reason) = access(path), reason != "is no directory" else { return nil }
                return DoctorEvidence.HostsEntry(name: name, file: nil, problem: reason)
            }
            let file = "\(path)/hosts.toml"
            guard FileManager.default.fileExists(atPath: file) else {
                return DoctorEvidence.HostsEntry(name: name, file: nil)
            }
            guard let data = FileManager.default.contents(atPath: file) else {
                return DoctorEvidence.HostsEntry(name: name, file: nil, problem: "cannot be read")
            }
            return DoctorEvidence.HostsEntry(name: name, file: Array(data.prefix(TOMLDocument.maximumLength + 1)))
        }
    }

    private static let hostsLimit = 1000

    /// The host that a file asks first, and the `Authorization` value sent to it.
    package static func firstHost(of entry: DoctorEvidence.HostsEntry) -> (target: String, authorization: String?)? {
        guard let file = entry.file, let document = try? TOMLDocument(parsing: file), let target = document.firstHost
        else { return nil }
        let header = document.root[["host", target, "header", "Authorization"]]
        return (target, header?.string ?? header?.array?.first?.string)
    }

    /// A number of `/proc/sys`.
    package static func setting(_ path: String) -> UInt64? {
        FileManager.default.contents(atPath: "/proc/sys/\(path)")
            .flatMap { UInt64(String(decoding: $0, as: UTF8.self).filter { !$0.isWhitespace }) }
    }

    /// The most files a process may open.
    package static func openFileLimit() -> UInt64? {
        var limit = rlimit()
        #if canImport(Glibc)
            guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        #else
            guard getrlimit(RLIMIT_NOFILE, &limit) == 0 else { return nil }
        #endif
        return UInt64(limit.rlim_max)
    }

    /// The permission bits of a file; nil when there is none.
    package static func mode(of path: String) -> UInt32? {
        var status = stat()
        return stat(path, &status) == 0 ? UInt32(status.st_mode) & 0o7777 : nil
    }

    /// The part of the evidence that files alone give.
    package static func examine(_ evidence: inout DoctorEvidence) {
        evidence.registryDirectoryAccess = access(evidence.registryDirectory)
        evidence.hosts = hosts(in: evidence.registryDirectory)
        let release: ContainerdRelease? =
            if case .answers(let version)? = evidence.socket { ContainerdRelease(in: version) } else { nil }
        do {
            guard FileManager.default.fileExists(atPath: evidence.configurationFile) else {
                throw ContainerdConfigurationError.file(path: evidence.configurationFile, reason: "does not exist here")
            }
            evidence.configuration = .success(
                try ContainerdConfigurationFiles(main: evidence.configurationFile, release: release))
        } catch let error as ContainerdConfigurationError {
            evidence.configuration = .failure(error)
        } catch {
            evidence.configuration = .failure(.file(path: evidence.configurationFile, reason: "\(error)"))
        }
        evidence.openFiles = openFileLimit()
        evidence.inotifyWatches = setting("fs/inotify/max_user_watches")
        evidence.inotifyInstances = setting("fs/inotify/max_user_instances")
        if let directory = evidence.dataDirectory, !directory.isEmpty {
            evidence.dataDirectoryAccess = access(directory, writing: true)
            evidence.keyFileMode = mode(of: "\(directory)/private.key")
        }
    }
}
