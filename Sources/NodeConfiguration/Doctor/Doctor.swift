import Foundation

/// The checks of a node: each says from the evidence how things are, and what to do.
package enum Doctor {
    package static let socket = DoctorCheck(
        id: "containerd-socket", title: "containerd answers on its socket",
        consequence: "The daemon learns of no images and serves nothing.")
    package static let namespace = DoctorCheck(
        id: "containerd-namespace", title: "The namespace holds images",
        consequence: "The daemon looks into an empty namespace and has nothing to serve.")
    package static let content = DoctorCheck(
        id: "content-path", title: "The content store can be read",
        consequence: "Blobs are read through containerd, slowly, or not at all.")
    package static let version = DoctorCheck(
        id: "containerd-version", title: "containerd's version is supported, and none of its known traps is set",
        consequence: "Services that the daemon needs are missing, or pulls fail that need not.")
    package static let cri = DoctorCheck(
        id: "cri-plugin", title: "containerd has loaded its CRI plugin",
        consequence: "The kubelet starts no pods and pulls no images.")
    package static let configPath = DoctorCheck(
        id: "config-path", title: "config_path names the registry configuration",
        consequence: "containerd never asks the mirror.")
    package static let layers = DoctorCheck(
        id: "discard-unpacked-layers", title: "Layers are kept when they have been unpacked",
        consequence: "Images cannot be served to other nodes, as their layers are gone.")
    package static let transfer = DoctorCheck(
        id: "transfer-service", title: "The transfer service finds the registry configuration",
        consequence: "containerd 2.1 and later takes a list of directories for one name and asks no mirror.")
    package static let legacy = DoctorCheck(
        id: "legacy-registry-tables", title: "No old registry tables stand beside config_path",
        consequence: "containerd refuses its configuration, or does not use config_path.")
    package static let hostsFiles = DoctorCheck(
        id: "hosts-files", title: "hosts.toml asks a mirror first for every mirrored registry",
        consequence: "containerd goes to the upstream registry at once.")
    package static let shadow = DoctorCheck(
        id: "hosts-shadow", title: "Nothing stands before the mirrors' configuration",
        consequence: "containerd uses another file than the one that names the mirror.")
    package static let mirror = DoctorCheck(
        id: "mirror-answers", title: "The configured mirrors answer",
        consequence: "Every pull waits for the mirror in vain before it goes upstream.")
    package static let auth = DoctorCheck(
        id: "basic-auth", title: "containerd sends the mirror's credentials",
        consequence: "The mirror answers 401 to every request.")
    package static let daemon = DoctorCheck(
        id: "daemon", title: "The daemon runs and is ready",
        consequence: "This node neither serves nor finds anything.")
    package static let ports = DoctorCheck(
        id: "ports", title: "The daemon's ports accept connections",
        consequence: "Clients or peers cannot reach this node.")
    package static let bootstrap = DoctorCheck(
        id: "bootstrap", title: "The bootstrap name resolves",
        consequence: "The node does not find the cluster.")
    package static let peers = DoctorCheck(
        id: "peers", title: "Peers are known",
        consequence: "There is nobody to fetch from.")
    package static let ownKey = DoctorCheck(
        id: "own-key", title: "A peer finds what this node advertises",
        consequence: "Other nodes do not fetch from this one.")
    package static let fetch = DoctorCheck(
        id: "peer-content", title: "Content comes from a peer and is right",
        consequence: "Pulls go to the upstream registry although a peer has the image.")
    package static let clock = DoctorCheck(
        id: "clock", title: "The clocks of the nodes agree",
        consequence: "Certificates and logs of nodes cannot be compared.")
    package static let openFiles = DoctorCheck(
        id: "open-files", title: "Enough files may be open",
        consequence: "Connections are refused under load.")
    package static let inotify = DoctorCheck(
        id: "inotify", title: "inotify has room",
        consequence: "Changes of the content store are noticed late.")
    package static let dataDirectory = DoctorCheck(
        id: "data-directory", title: "The node's identity can be kept",
        consequence: "The node gets a new identity at each start, or does not start.")

    /// All checks, in the order in which they are made: what later ones depend on comes first.
    package static let checks = [
        socket, namespace, content, version, cri, configPath, layers, transfer, legacy, hostsFiles, shadow, mirror,
        auth,
        daemon, ports,
        bootstrap, peers, ownKey, fetch, clock, openFiles, inotify, dataDirectory,
    ]

    /// The checks that only look at this node's files and at containerd, as a daemon makes them at its start.
    package static let cheap: Set<String> = [
        version.id, cri.id, configPath.id, layers.id, transfer.id, legacy.id, hostsFiles.id, shadow.id, openFiles.id,
        inotify.id,
    ]

    /// What the evidence says, a finding for each check that was made.
    package static func examine(_ evidence: DoctorEvidence) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if evidence.usesContainerd {
            findings += [
                checkSocket(evidence), checkNamespace(evidence), checkContent(evidence), checkVersion(evidence),
                checkCRI(evidence),
            ].compactMap(\.self)
            findings += checkConfiguration(evidence)
            findings += checkHosts(evidence)
        }
        findings += checkMirrors(evidence)
        findings += [
            checkDaemon(evidence), checkPorts(evidence), checkBootstrap(evidence), checkPeers(evidence),
            checkOwnKey(evidence),
            checkFetch(evidence), checkClock(evidence),
        ].compactMap(\.self)
        findings += checkLimits(evidence)
        findings += [checkDataDirectory(evidence)].compactMap(\.self)
        let order = Dictionary(uniqueKeysWithValues: checks.enumerated().map { ($1.id, $0) })
        return findings.enumerated().sorted {
            (order[$0.element.check] ?? 0, $0.offset) < (order[$1.element.check] ?? 0, $1.offset)
        }
        .map(\.element)
    }

    // MARK: containerd

    private static func checkSocket(_ evidence: DoctorEvidence) -> DoctorFinding? {
        let path = evidence.containerdSocketPath
        switch evidence.socket {
        case nil: return nil
        case .missing:
            return DoctorFinding(
                socket, .failure, "\(path) does not exist",
                fix: "start containerd, mount its socket into the container, or give its path with --containerd-sock")
        case .refused(let reason):
            return DoctorFinding(
                socket, .failure, "\(path): \(reason)",
                fix: "systemctl restart containerd; run as a user who may use \(path)")
        case .answers(let version):
            return DoctorFinding(socket, .ok, "containerd \(version) answers on \(path)")
        }
    }

    private static func checkNamespace(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let namespaces = evidence.namespaces else { return nil }
        let known = namespaces.isEmpty ? "none" : namespaces.sorted().joined(separator: ", ")
        guard namespaces.contains(evidence.namespace) else {
            return DoctorFinding(
                namespace, namespaces.isEmpty ? .warning : .failure,
                "containerd has no namespace '\(evidence.namespace)'; it has: \(known)",
                fix: namespaces.isEmpty
                    ? "pull an image into it: ctr --namespace \(evidence.namespace) images pull IMAGE"
                    : "give the one that holds the images with --containerd-namespace (Kubernetes uses k8s.io)")
        }
        guard let images = evidence.images else { return nil }
        guard images > 0 else {
            return DoctorFinding(
                namespace, .warning, "the namespace '\(evidence.namespace)' holds no image",
                fix: "pull an image into it, or give another with --containerd-namespace; containerd has: \(known)")
        }
        return DoctorFinding(namespace, .ok, "\(images) images in '\(evidence.namespace)'")
    }

    private static func checkContent(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let access = evidence.contentAccess else { return nil }
        let path = evidence.contentPath
        if let root = evidence.contentRoot, !isSamePath(root, path) {
            return DoctorFinding(
                content, .failure, "containerd keeps content in \(root), not in \(path)",
                fix: "give --containerd-content-path \(root), and mount that directory at the same path")
        }
        switch access {
        case .missing:
            // Made by the first write from 1.7.24 to 2.2.
            if evidence.images == 0 {
                return DoctorFinding(
                    content, .ok, "\(path) is not there yet; containerd makes it when it stores its first content")
            }
            return DoctorFinding(
                content, .failure, "\(path) does not exist here",
                fix: "mount the host's \(path) read-only at the same path, or give --containerd-content-path")
        case .denied(let reason):
            return DoctorFinding(
                content, .failure, "\(path): \(reason)", fix: "run the daemon as root or as a user who may read \(path)"
            )
        case .usable: break
        }
        if case .denied(let reason) = evidence.ingestAccess {
            return DoctorFinding(
                content, .warning, "\(path)/ingest: \(reason)", fix: "let the daemon read \(path)/ingest as well")
        }
        return DoctorFinding(content, .ok, "\(path) can be read")
    }

    private static func checkVersion(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard case .answers(let text)? = evidence.socket else { return nil }
        guard let release = ContainerdRelease(in: text) else {
            return DoctorFinding(version, .unknown, "'\(text)' is no release", fix: nil)
        }
        if release < ContainerdRelease(major: 1, minor: 6) {
            return DoctorFinding(
                version, .failure, "containerd \(text) is older than 1.6", fix: "upgrade containerd to 1.6 or later")
        }
        if case .success(let files)? = evidence.configuration, let value = files.parallelLayerFetch {
            return DoctorFinding(
                version, .warning,
                "\(value.path) line \(value.line) fetches a layer by several requests, all of which go to the host that answered"
                    + " first: when it fails, so does the pull",
                fix: "set concurrent_layer_fetch_buffer = 0 in \(value.path) line \(value.line) and restart containerd")
        }
        if release < ContainerdRelease(major: 1, minor: 7), let name = serverOnly(evidence.hosts ?? []) {
            let path = "\(evidence.registryDirectory)/\(name)/hosts.toml"
            return DoctorFinding(
                version, .warning, "containerd \(text) refuses \(path), which has only a server",
                fix: "add a [host] table to \(path), or remove it")
        }
        return DoctorFinding(version, .ok, "containerd \(text)")
    }

    private static func serverOnly(_ entries: [DoctorEvidence.HostsEntry]) -> String? {
        entries.first { entry in
            guard let file = entry.file, let document = try? TOMLDocument(parsing: file) else { return false }
            return document.root[["server"]] != nil && document.root[["host"]] == nil
        }?.name
    }

    private static func checkCRI(_ evidence: DoctorEvidence) -> DoctorFinding? {
        switch evidence.criPlugin {
        case nil: nil
        case .missing: DoctorFinding(cri, .skipped, "CRI is disabled")
        case .usable: DoctorFinding(cri, .ok, "loaded")
        case .denied(let reason):
            DoctorFinding(
                cri, .failure, reason,
                fix: "repair what it names in \(evidence.configurationFile), then systemctl restart containerd")
        }
    }

    // MARK: config.toml

    private static func checkConfiguration(_ evidence: DoctorEvidence) -> [DoctorFinding] {
        let directory = evidence.registryDirectory
        let prepare =
            "spegel containerd-prep --containerd-config-file \(evidence.configurationFile) --containerd-registry-config-path \(directory) --restart-systemd"
        let files: ContainerdConfigurationFiles
        switch evidence.configuration {
        case nil: return []
        case .failure(let error):
            if let path = evidence.runtimeConfigPath {
                return runtimeFindings(evidence, path: path, prepare: prepare)
            }
            let result: DoctorFinding.Result = if case .file = error { .unknown } else { .failure }
            return [configPath, layers].map {
                DoctorFinding(
                    $0, result, "\(error)",
                    fix: "make \(evidence.configurationFile) readable here and correct, then run doctor again")
            }
        case .success(let value): files = value
        }
        var findings: [DoctorFinding] = []
        let value = files.value(of: .configPath)
        let runtime = evidence.runtimeConfigPath
        let isRuntimeBehind =
            runtime.map { path in !path.split(separator: ":").contains { isSamePath(String($0), directory) } } ?? false
        if !files.hasRegistryDirectory(directory) {
            let seen =
                value.map { "config_path is '\($0.value.string ?? "")' (\($0.path) line \($0.line))" }
                ?? "no config_path is set in \(files.files.map(\.path).joined(separator: ", "))"
            findings.append(
                DoctorFinding(
                    configPath, .failure, "\(seen); the mirror's configuration is in \(directory)", fix: prepare))
        } else if isRuntimeBehind {
            findings.append(
                DoctorFinding(
                    configPath, .failure,
                    "\(evidence.configurationFile) names \(directory), but the running containerd has '\(runtime ?? "")'",
                    fix: "systemctl restart containerd"))
        } else {
            findings.append(
                DoctorFinding(
                    configPath, .ok,
                    "config_path has \(directory)"
                        + (value.map { " (\($0.path) line \($0.line))" } ?? ", by containerd's default")))
        }
        if !files.keepsLayers {
            let place = files.value(of: .discardUnpackedLayers)
            findings.append(
                DoctorFinding(
                    layers, .failure,
                    "discard_unpacked_layers is \(place?.value.inlineText ?? "true")"
                        + (place.map { " (\($0.path) line \($0.line))" } ?? ""), fix: prepare))
        } else if evidence.runtimeDiscardsLayers == true {
            findings.append(
                DoctorFinding(
                    layers, .failure,
                    "\(evidence.configurationFile) keeps layers, but the running containerd discards them",
                    fix: "systemctl restart containerd"))
        } else {
            findings.append(DoctorFinding(layers, .ok, "discard_unpacked_layers is false"))
        }
        findings.append(checkTransfer(files, directory: directory))
        findings.append(checkLegacy(files, directory: directory))
        return findings
    }

    /// What containerd 1.x tells of itself, where its file cannot be read.
    private static func runtimeFindings(_ evidence: DoctorEvidence, path: String, prepare: String) -> [DoctorFinding] {
        let isRight = path.split(separator: ":").contains { isSamePath(String($0), evidence.registryDirectory) }
        return [
            isRight
                ? DoctorFinding(configPath, .ok, "the running containerd has config_path '\(path)'")
                : DoctorFinding(configPath, .failure, "the running containerd has config_path '\(path)'", fix: prepare),
            evidence.runtimeDiscardsLayers == true
                ? DoctorFinding(layers, .failure, "the running containerd discards unpacked layers", fix: prepare)
                : DoctorFinding(layers, .ok, "the running containerd keeps unpacked layers"),
        ]
    }

    private static func checkTransfer(_ files: ContainerdConfigurationFiles, directory: String) -> DoctorFinding {
        let isNew = files.release.map { $0 >= ContainerdRelease(major: 2, minor: 1) } ?? (files.version >= 3)
        guard isNew else { return DoctorFinding(transfer, .skipped, "CRI pulls by itself before containerd 2.1") }
        guard files.usesTransferService else {
            return DoctorFinding(transfer, .ok, "CRI pulls by itself, as its settings have it")
        }
        guard files.registryDirectories.count > 1 else {
            return DoctorFinding(transfer, .ok, "config_path is one directory")
        }
        let value = files.value(of: .configPath)
        let place = value.map { "\($0.path) line \($0.line)" } ?? "containerd's default"
        return DoctorFinding(
            transfer, .failure, "config_path is the list '\(files.configPath)' (\(place))",
            fix:
                "set config_path = \"\(directory)\" in \(value.map { "\($0.path) line \($0.line)" } ?? files.main.path), or"
                + " use_local_image_pull = true in [plugins.'io.containerd.cri.v1.images'], and restart containerd")
    }

    private static func checkLegacy(_ files: ContainerdConfigurationFiles, directory: String) -> DoctorFinding {
        guard let (setting, value) = files.conflictingTable else {
            return DoctorFinding(legacy, .ok, "nothing that excludes config_path")
        }
        return DoctorFinding(
            legacy, .failure, "\(value.path) line \(value.line) has \(setting.rawValue)",
            fix: "move its entries into \(directory)/REGISTRY/hosts.toml, remove the table and restart containerd")
    }

    // MARK: hosts.toml

    private static func checkHosts(_ evidence: DoctorEvidence) -> [DoctorFinding] {
        guard let access = evidence.registryDirectoryAccess else { return [] }
        let directory = evidence.registryDirectory
        let configure =
            "spegel configuration --containerd-registry-config-path \(directory) --mirror-targets http://127.0.0.1:PORT"
            + (evidence.registries.isEmpty
                ? "" : " --mirrored-registries \(evidence.registries.map(\.description).joined(separator: " "))")
        switch access {
        case .missing:
            return [DoctorFinding(hostsFiles, .failure, "\(directory) does not exist", fix: configure)]
        case .denied(let reason):
            return [
                DoctorFinding(
                    hostsFiles, .failure, "\(directory): \(reason)", fix: "let doctor and containerd read \(directory)")
            ]
        case .usable: break
        }
        let entries = evidence.hosts ?? []
        var findings: [DoctorFinding] = []
        let names = evidence.registries.isEmpty ? ["_default"] : evidence.registries.map(\.host)
        for name in names {
            guard let entry = entries.first(where: { $0.name == name }) else {
                findings.append(
                    DoctorFinding(
                        hostsFiles, .failure, "\(directory)/\(name)/hosts.toml does not exist", fix: configure))
                continue
            }
            findings.append(checkHosts(entry, directory: directory, configure: configure))
        }
        findings.append(checkShadow(entries, names: names, directory: directory))
        return findings
    }

    private static func checkHosts(_ entry: DoctorEvidence.HostsEntry, directory: String, configure: String)
        -> DoctorFinding
    {
        let path = "\(directory)/\(entry.name)/hosts.toml"
        if let problem = entry.problem {
            return DoctorFinding(hostsFiles, .failure, "\(path): \(problem)", fix: "let containerd read \(path)")
        }
        guard let file = entry.file else {
            return DoctorFinding(hostsFiles, .failure, "\(path) does not exist", fix: configure)
        }
        do {
            let document = try TOMLDocument(parsing: file)
            guard let first = document.firstHost, let host = document.root[["host", first]] else {
                return DoctorFinding(hostsFiles, .failure, "\(path) names no host", fix: configure)
            }
            let capabilities = host[["capabilities"]]?.array?.compactMap(\.string)
            guard capabilities?.contains("pull") ?? true else {
                return DoctorFinding(
                    hostsFiles, .failure, "\(path): the first host \(first) may not pull",
                    fix: "add 'pull' to its capabilities, or: \(configure)")
            }
            return DoctorFinding(hostsFiles, .ok, "\(path) asks \(first) first")
        } catch {
            return DoctorFinding(
                hostsFiles, .failure, "\(path) is no TOML (\(error))", fix: "repair it, or: \(configure)")
        }
    }

    private static func checkShadow(_ entries: [DoctorEvidence.HostsEntry], names: [String], directory: String)
        -> DoctorFinding
    {
        for name in names where name.contains(":") && name != "_default" {
            // containerd looks for HOST_PORT_ before HOST:PORT.
            let alias = String(name.map { $0 == ":" ? "_" : $0 }) + "_"
            if entries.contains(where: { $0.name == alias }) {
                return DoctorFinding(
                    shadow, .failure, "containerd uses \(directory)/\(alias) before \(directory)/\(name)",
                    fix: "move its content into \(directory)/\(name) and remove it: rm -r '\(directory)/\(alias)'")
            }
        }
        if names.contains("_default") {
            let others = entries.filter {
                !names.contains($0.name) && !$0.name.hasPrefix("_") && !$0.name.hasPrefix(".")
            }.map(\.name).sorted()
            if !others.isEmpty {
                return DoctorFinding(
                    shadow, .warning,
                    "for \(others.joined(separator: ", ")) containerd does not use _default, as they have directories of their own",
                    fix:
                        "name them with --mirrored-registries as well and use --prepend-existing, or remove \(directory)/\(others[0])"
                )
            }
        }
        return DoctorFinding(shadow, .ok, "nothing stands before the mirrors' files")
    }

    // MARK: Mirrors

    private static func checkMirrors(_ evidence: DoctorEvidence) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        for (target, answer) in evidence.mirrorAnswers.sorted(by: { $0.key < $1.key }) {
            switch answer {
            case .status(200): findings.append(DoctorFinding(mirror, .ok, "\(target) answers"))
            case .status(401):
                findings.append(
                    DoctorFinding(
                        auth, .failure, "\(target) answers 401 to what containerd sends",
                        fix:
                            "run 'spegel configuration' again where the secret is mounted at /etc/secrets/basic-auth, or remove it from the daemon"
                    ))
            case .status(let status):
                findings.append(
                    DoctorFinding(
                        mirror, .failure, "\(target) answers \(status)",
                        fix: "check that \(target) is a Spegel registry port"))
            case .failed(let reason):
                findings.append(
                    DoctorFinding(
                        mirror, .failure, "\(target): \(reason)",
                        fix:
                            "start the daemon with --registry-addr on that port, or run 'spegel configuration' with the right --mirror-targets"
                    ))
            }
        }
        if let authorization = evidence.authorization, let hosts = evidence.hosts {
            let lacking = hosts.filter { entry in
                guard let file = entry.file, let document = try? TOMLDocument(parsing: file),
                    let first = document.firstHost
                else { return false }
                return document.root[["host", first, "header", "Authorization"]]?.string != authorization
            }
            if !lacking.isEmpty, !findings.contains(where: { $0.check == auth.id }) {
                findings.append(
                    DoctorFinding(
                        auth, .failure,
                        "\(lacking.map(\.name).joined(separator: ", ")): hosts.toml does not carry the secret's credentials",
                        fix: "run 'spegel configuration' again where the secret is mounted at /etc/secrets/basic-auth"))
            }
        }
        return findings
    }

    // MARK: The daemon and its peers

    private static func checkDaemon(_ evidence: DoctorEvidence) -> DoctorFinding? {
        switch evidence.daemon {
        case nil: return nil
        case .failure(let error):
            return DoctorFinding(
                daemon, .failure, "\(evidence.metricsAddress): \(error)",
                fix: "start 'spegel registry', or give its --metrics-addr; it must run with --debug-web-enabled")
        case .success(let state):
            guard state.isReady else {
                return DoctorFinding(
                    daemon, .failure, "not ready: \(state.reason ?? "no reason given")",
                    fix: "see the findings on containerd and the bootstrap; the daemon's log says more")
            }
            return DoctorFinding(daemon, .ok, "ready, \(state.advertisedKeys) keys advertised")
        }
    }

    private static func checkPorts(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let ports = evidence.ports else { return nil }
        for (name, answer) in ports.sorted(by: { $0.key < $1.key }) {
            if case .failed(let reason) = answer {
                return DoctorFinding(
                    self.ports, .failure, "\(name): \(reason)",
                    fix:
                        "check \(name.split(separator: " ").first ?? "") of the daemon, and that no firewall or network policy is in between"
                )
            }
        }
        return DoctorFinding(self.ports, .ok, ports.keys.sorted().joined(separator: ", "))
    }

    private static func checkBootstrap(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let name = evidence.bootstrapName else { return nil }
        switch evidence.bootstrapAddresses {
        case nil: return nil
        case .failure(let error):
            return DoctorFinding(
                bootstrap, .failure, "\(name): \(error)",
                fix:
                    "check --dns-bootstrap-domain and that the headless bootstrap service publishes addresses that are not ready"
            )
        case .success(let addresses) where addresses.isEmpty:
            return DoctorFinding(
                bootstrap, .failure, "\(name) has no address",
                fix:
                    "check --dns-bootstrap-domain and that the headless bootstrap service publishes addresses that are not ready"
            )
        case .success(let addresses):
            return DoctorFinding(bootstrap, .ok, "\(name): \(addresses.joined(separator: ", "))")
        }
    }

    private static func checkPeers(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard case .success(let state)? = evidence.daemon, state.peerID != nil else { return nil }
        guard state.peers > 0 else {
            return DoctorFinding(
                peers, .warning, "no peer is known; a cluster of one node has nobody to fetch from",
                fix:
                    "check --bootstrap-kind and its options, and that nodes reach each other's --router-addr port over TCP"
            )
        }
        return DoctorFinding(peers, .ok, "\(state.peers) peers")
    }

    private static func checkOwnKey(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let ownKey = evidence.ownKey else { return nil }
        guard ownKey.isFound else {
            return DoctorFinding(
                self.ownKey, .failure,
                "no peer names this node for \(ownKey.key)" + (ownKey.reason.map { ": \($0)" } ?? ""),
                fix: "check that peers reach this node's --router-addr port, and wait a minute after a start")
        }
        return DoctorFinding(self.ownKey, .ok, "a peer names this node for \(ownKey.key)")
    }

    private static func checkFetch(_ evidence: DoctorEvidence) -> DoctorFinding? {
        switch evidence.fetch {
        case nil: return nil
        case .nothingShared:
            return DoctorFinding(
                fetch, .unknown, "no peer has content that could be tried",
                fix: "pull an image on another node, then run doctor again")
        case .failed(let digest, let reason):
            return DoctorFinding(
                fetch, .failure, "\(digest): \(reason)",
                fix: "check that this node reaches the peer's --registry-addr port, which must be the same on all nodes"
            )
        case .verified(let digest, let source, let bytes):
            return DoctorFinding(fetch, .ok, "\(bytes) bytes of \(digest) from \(source), digest verified")
        }
    }

    /// Clocks that differ by more are worth a word, in seconds. `Date` fields count whole seconds.
    private static let clockTolerance = 5.0

    private static func checkClock(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let offsets = evidence.clockOffsets else { return nil }
        guard let worst = offsets.max(by: { abs($0.value) < abs($1.value) }) else {
            return DoctorFinding(clock, .skipped, "no peer to compare with")
        }
        guard abs(worst.value) <= clockTolerance else {
            let direction = worst.value > 0 ? "ahead of" : "behind"
            return DoctorFinding(
                clock, .warning, "\(worst.key) is \(Int(abs(worst.value))) s \(direction) this node",
                fix: "systemctl enable --now systemd-timesyncd (or chrony) on both nodes")
        }
        return DoctorFinding(clock, .ok, "within \(Int(clockTolerance)) s of \(offsets.count) peers")
    }

    // MARK: This machine

    private static func checkLimits(_ evidence: DoctorEvidence) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if let limit = evidence.openFiles {
            findings.append(
                limit < 4096
                    ? DoctorFinding(
                        openFiles, .warning, "a process may open \(limit) files",
                        fix: "set LimitNOFILE=65536 in the unit, or ulimit -n 65536")
                    : DoctorFinding(openFiles, .ok, "a process may open \(limit) files"))
        }
        if let watches = evidence.inotifyWatches, let instances = evidence.inotifyInstances {
            findings.append(
                watches < 8192 || instances < 128
                    ? DoctorFinding(
                        inotify, .warning, "\(watches) watches, \(instances) instances a user",
                        fix: "sysctl -w fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=512")
                    : DoctorFinding(inotify, .ok, "\(watches) watches, \(instances) instances a user"))
        }
        return findings
    }

    private static func checkDataDirectory(_ evidence: DoctorEvidence) -> DoctorFinding? {
        guard let path = evidence.dataDirectory else { return nil }
        guard !path.isEmpty else {
            return DoctorFinding(dataDirectory, .skipped, "no --data-dir: the node has a new identity at each start")
        }
        switch evidence.dataDirectoryAccess {
        case nil: return nil
        case .missing:
            return DoctorFinding(dataDirectory, .failure, "\(path) does not exist", fix: "mkdir -p -m 0700 \(path)")
        case .denied(let reason):
            return DoctorFinding(
                dataDirectory, .failure, "\(path): \(reason)", fix: "let the daemon's user write \(path)")
        case .usable: break
        }
        if let mode = evidence.keyFileMode, mode & 0o077 != 0 {
            return DoctorFinding(
                dataDirectory, .warning, "\(path)/private.key has mode 0\(String(mode, radix: 8))",
                fix: "chmod 0600 \(path)/private.key")
        }
        return DoctorFinding(dataDirectory, .ok, "\(path) can be written")
    }

    private static func isSamePath(_ left: String, _ right: String) -> Bool {
        left.normalizedPath == right.normalizedPath
    }
}

extension TOMLDocument {
    /// The host that containerd asks first: that of the first table.
    package var firstHost: String? {
        headers.first { $0.path.count >= 2 && $0.path[0] == "host" }?.path[1]
            ?? assignments.first { $0.path.count >= 2 && $0.path[0] == "host" }?.path[1]
    }
}
