import Foundation
import NodeConfiguration
import Testing

/// What `configuration` and `cleanup` leave, file by file. The expected files are those of the Go original.
@Suite struct HostsConfigurationTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var existing: [String: String] = [:]
        var registries: [String] = ["https://docker.io"]
        var targets = ["http://127.0.0.1:5000"]
        var resolveTags = true
        var prepend = false
        var authorization: String?
        var expected: [String: String]

        var testDescription: String { name }
    }

    static func hosts(
        _ server: String?, _ targets: [String] = ["http://127.0.0.1:5000"], tags: Bool = true, header: String? = nil,
        then rest: String = ""
    ) -> String {
        var text = server.map { "server = '\($0)'\n" } ?? ""
        for target in targets {
            text +=
                "[host.'\(target)']\ncapabilities = \(tags ? "['pull', 'resolve']" : "['pull']")\ndial_timeout = '200ms'\n"
            if let header { text += "[host.'\(target)'.header]\nAuthorization = '\(header)'\n" }
        }
        return text + rest
    }

    static let dockerHub = hosts("https://registry-1.docker.io")
    static let certificate = "-----BEGIN CERTIFICATE-----\n"
    static let former = """
        server = "https://registry-1.docker.io"
        [host."https://mirror.example:8443"]
          capabilities = ["pull", "resolve"]
          ca = "ca.crt"
          skip_verify = false
          [host."https://mirror.example:8443".header]
            x-custom-2 = ["value1", "value2"]
        [host.'http://second.example']
          capabilities = ["pull"]
        """
    static let formerHosts = """
        [host.'https://mirror.example:8443']
        ca = 'ca.crt'
        capabilities = ['pull', 'resolve']
        skip_verify = false
        [host.'https://mirror.example:8443'.header]
        x-custom-2 = ['value1', 'value2']
        [host.'http://second.example']
        capabilities = ['pull']
        """

    static let cases: [Case] = [
        Case(name: "no directory", expected: ["docker.io/hosts.toml": dockerHub]),
        Case(
            name: "several mirrors in order", registries: ["http://foo.bar:5000"],
            targets: ["http://127.0.0.1:5000", "http://127.0.0.2:5000", "http://127.0.0.1:5001"],
            expected: [
                "foo.bar:5000/hosts.toml": hosts(
                    "http://foo.bar:5000", ["http://127.0.0.1:5000", "http://127.0.0.2:5000", "http://127.0.0.1:5001"])
            ]),
        Case(name: "no registry is all", registries: [], expected: ["_default/hosts.toml": hosts(nil)]),
        Case(name: "the wildcard by name", registries: ["_default"], expected: ["_default/hosts.toml": hosts(nil)]),
        Case(name: "the wildcard as a star", registries: ["*"], expected: ["_default/hosts.toml": hosts(nil)]),
        Case(
            name: "the wildcard beside a registry", registries: ["*", "https://ghcr.io"],
            expected: ["_default/hosts.toml": hosts(nil), "ghcr.io/hosts.toml": hosts("https://ghcr.io")]),
        Case(
            name: "tags not resolved", registries: ["https://docker.io", "http://foo.bar:5000"], resolveTags: false,
            expected: [
                "docker.io/hosts.toml": hosts("https://registry-1.docker.io", tags: false),
                "foo.bar:5000/hosts.toml": hosts("http://foo.bar:5000", tags: false),
            ]),
        Case(
            name: "docker.io over http is not the hub", registries: ["http://docker.io"],
            expected: ["docker.io/hosts.toml": hosts("http://docker.io")]),
        Case(
            name: "upper case", registries: ["HTTPS://GHCR.IO"],
            expected: ["ghcr.io/hosts.toml": hosts("https://ghcr.io")]),
        Case(
            name: "a registry at an IPv6 address", registries: ["http://[fd00::1]:5000"],
            expected: ["[fd00::1]:5000/hosts.toml": hosts("http://[fd00::1]:5000")]),
        Case(
            name: "a mirror at an IPv6 address", targets: ["http://[fd00::2]:30020"],
            expected: ["docker.io/hosts.toml": hosts("https://registry-1.docker.io", ["http://[fd00::2]:30020"])]),
        Case(
            name: "a mirror at an IPv6 address without brackets", targets: ["http://fd00::2:30020"],
            expected: ["docker.io/hosts.toml": hosts("https://registry-1.docker.io", ["http://[fd00::2]:30020"])]),
        Case(
            name: "an https mirror", targets: ["https://mirror.example"],
            expected: ["docker.io/hosts.toml": hosts("https://registry-1.docker.io", ["https://mirror.example"])]),
        Case(
            name: "basic auth", targets: ["http://127.0.0.1:5000", "http://127.0.0.1:5001"],
            authorization: "Basic aGVsbG86d29ybGQ=",
            expected: [
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io", ["http://127.0.0.1:5000", "http://127.0.0.1:5001"],
                    header: "Basic aGVsbG86d29ybGQ=")
            ]),
        Case(
            name: "former files go to the backup",
            existing: ["docker.io/hosts.toml": "hello = 'world'", "ghcr.io/hosts.toml": "foo = 'bar'"],
            expected: [
                "_backup/docker.io/hosts.toml": "hello = 'world'", "_backup/ghcr.io/hosts.toml": "foo = 'bar'",
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "a file at the top", existing: ["README": "mine"],
            expected: ["_backup/README": "mine", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "an empty registry directory is not configuration", existing: ["x/y/z.txt": "1"],
            expected: ["_backup/x/y/z.txt": "1", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "prepended", existing: ["docker.io/hosts.toml": former, "docker.io/ca.crt": certificate],
            prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": former, "_backup/docker.io/ca.crt": certificate,
                "docker.io/ca.crt": certificate,
                "docker.io/hosts.toml": hosts("https://registry-1.docker.io", then: formerHosts),
            ]),
        Case(
            name: "prepending switched off",
            existing: ["docker.io/hosts.toml": former, "docker.io/ca.crt": certificate],
            expected: [
                "_backup/docker.io/hosts.toml": former, "_backup/docker.io/ca.crt": certificate,
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "prepended with nested files",
            existing: ["docker.io/hosts.toml": former, "docker.io/certs/a/client.key": "k"], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": former, "_backup/docker.io/certs/a/client.key": "k",
                "docker.io/certs/a/client.key": "k",
                "docker.io/hosts.toml": hosts("https://registry-1.docker.io", then: formerHosts),
            ]),
        Case(
            name: "prepended to a file without hosts",
            existing: ["docker.io/hosts.toml": "server = 'https://x.example'", "docker.io/ca.crt": certificate],
            prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": "server = 'https://x.example'", "_backup/docker.io/ca.crt": certificate,
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "prepended to another registry only", existing: ["ghcr.io/hosts.toml": former], prepend: true,
            expected: ["_backup/ghcr.io/hosts.toml": former, "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "prepended for the wildcard",
            existing: ["_default/hosts.toml": "[host.'https://all.example']\ncapabilities = ['pull']"], registries: [],
            prepend: true,
            expected: [
                "_backup/_default/hosts.toml": "[host.'https://all.example']\ncapabilities = ['pull']",
                "_default/hosts.toml": hosts(nil, then: "[host.'https://all.example']\ncapabilities = ['pull']"),
            ]),
        Case(
            name: "a host with only a header",
            existing: ["docker.io/hosts.toml": "[host.'https://a.example'.header]\nx = ['1']"], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": "[host.'https://a.example'.header]\nx = ['1']",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io", then: "[host.'https://a.example'.header]\nx = ['1']"),
            ]),
        Case(
            name: "hosts as dotted keys",
            existing: [
                "docker.io/hosts.toml":
                    "host.'https://b.example'.capabilities = ['pull']\nhost.'https://a.example'.capabilities = ['pull']"
            ], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml":
                    "host.'https://b.example'.capabilities = ['pull']\nhost.'https://a.example'.capabilities = ['pull']",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io",
                    then:
                        "[host.'https://b.example']\ncapabilities=['pull']\n[host.'https://a.example']\ncapabilities=['pull']"
                ),
            ]),
        Case(
            name: "client pairs",
            existing: [
                "docker.io/hosts.toml":
                    "[host.\"https://a.example\"]\nclient = [[\"/c.cert\", \"/c.key\"],[\"/c.pem\", \"\"]]"
            ], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml":
                    "[host.\"https://a.example\"]\nclient = [[\"/c.cert\", \"/c.key\"],[\"/c.pem\", \"\"]]",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io",
                    then: "[host.'https://a.example']\nclient = [['/c.cert', '/c.key'], ['/c.pem', '']]"),
            ]),
        Case(
            name: "a text that needs double quotes",
            existing: ["docker.io/hosts.toml": "[host.\"https://a.example\"]\nca = \"/it's.crt\""], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": "[host.\"https://a.example\"]\nca = \"/it's.crt\"",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io", then: "[host.'https://a.example']\nca = \"/it's.crt\""),
            ]),
        Case(
            name: "a malformed file that is not prepended to", existing: ["docker.io/hosts.toml": "[host"],
            expected: ["_backup/docker.io/hosts.toml": "[host", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "an existing backup stays",
            existing: ["_backup/docker.io/hosts.toml": "hello = 'world'", "_backup/ghcr.io/hosts.toml": "foo = 'bar'"],
            expected: [
                "_backup/docker.io/hosts.toml": "hello = 'world'", "_backup/ghcr.io/hosts.toml": "foo = 'bar'",
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "generated files of an earlier run go",
            existing: [
                "_backup/README": "mine", "ghcr.io/hosts.toml": hosts("https://ghcr.io"),
                "_default/hosts.toml": hosts(nil),
            ],
            expected: ["_backup/README": "mine", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "generated files with another mirror go",
            existing: [
                "_backup/README": "mine",
                "ghcr.io/hosts.toml": hosts(
                    "https://ghcr.io", ["http://10.0.0.1:1"], tags: false, header: "Basic eA=="),
            ],
            expected: ["_backup/README": "mine", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "an operator's file beside ours is kept",
            existing: ["_backup/README": "mine", "ghcr.io/hosts.toml": "server = 'https://later.example'"],
            expected: [
                "_backup/README": "mine", "_backup/ghcr.io/hosts.toml": "server = 'https://later.example'",
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "a certificate beside our file is kept",
            existing: [
                "_backup/README": "mine", "ghcr.io/hosts.toml": hosts("https://ghcr.io"), "ghcr.io/ca.crt": certificate,
            ],
            expected: [
                "_backup/README": "mine", "_backup/ghcr.io/ca.crt": certificate, "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "a later file of the operator does not overwrite the backup",
            existing: ["_backup/ghcr.io/hosts.toml": "first = 1", "ghcr.io/hosts.toml": "second = 2"],
            expected: [
                "_backup/ghcr.io/hosts.toml": "first = 1", "_backup/ghcr.io/hosts.toml.kept-1": "second = 2",
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "a generated file that was edited is the operator's, without the mirror",
            existing: [
                "_backup/README": "mine",
                "ghcr.io/hosts.toml": hosts("https://ghcr.io") + "[host.'https://a.example']\nskip_verify = true\n",
                "quay.io/hosts.toml": hosts("https://quay.io") + "skip_verify = true\n",
            ],
            expected: [
                "_backup/README": "mine",
                "_backup/ghcr.io/hosts.toml":
                    "server = 'https://ghcr.io'\n[host.'https://a.example']\nskip_verify = true\n",
                "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "an unreadable TOML of the operator beside ours is kept",
            existing: ["_backup/README": "mine", "ghcr.io/hosts.toml": "[[["],
            expected: [
                "_backup/README": "mine", "_backup/ghcr.io/hosts.toml": "[[[", "docker.io/hosts.toml": dockerHub,
            ]),
        Case(
            name: "a port with an underscored directory", existing: ["foo.bar_5000_/hosts.toml": "a = 1"],
            registries: ["http://foo.bar:5000"],
            expected: [
                "_backup/foo.bar_5000_/hosts.toml": "a = 1", "foo.bar:5000/hosts.toml": hosts("http://foo.bar:5000"),
            ]),
        Case(
            name: "one registry twice", registries: ["https://ghcr.io", "https://ghcr.io"],
            expected: ["ghcr.io/hosts.toml": hosts("https://ghcr.io")]),
        Case(
            name: "certificates in a directory of Docker's form", existing: ["ghcr.io/ca.crt": certificate],
            prepend: true,
            expected: ["_backup/ghcr.io/ca.crt": certificate, "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "an empty hosts.toml", existing: ["docker.io/hosts.toml": ""], prepend: true,
            expected: ["_backup/docker.io/hosts.toml": "", "docker.io/hosts.toml": dockerHub]),
        Case(
            name: "names that need no quotes",
            existing: ["docker.io/hosts.toml": "[host.local]\ncapabilities = ['pull']"], prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": "[host.local]\ncapabilities = ['pull']",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io", then: "[host.local]\ncapabilities = ['pull']"),
            ]),
        Case(
            name: "a comment in a prepended file stays in the backup",
            existing: ["docker.io/hosts.toml": "# why\n[host.'http://a.example'] # this\nskip_verify = true"],
            prepend: true,
            expected: [
                "_backup/docker.io/hosts.toml": "# why\n[host.'http://a.example'] # this\nskip_verify = true",
                "docker.io/hosts.toml": hosts(
                    "https://registry-1.docker.io", then: "[host.'http://a.example']\nskip_verify = true"),
            ]),
    ]

    static func plan(_ test: Case) throws -> MirrorConfigurationPlan {
        MirrorConfigurationPlan(
            registries: try test.registries.map { try RegistryURL(parsing: $0) },
            targets: try test.targets.map { try RegistryURL(parsingMirrorTarget: $0) }, resolvesTags: test.resolveTags,
            prependsExisting: test.prepend, authorization: test.authorization)
    }

    @Test func tableIsLargeEnough() { #expect(Self.cases.count >= 40) }

    @Test(arguments: cases, [true, false])
    func configuresOnceAndTwiceAndCleansUp(test: Case, exchangesWhole: Bool) throws {
        let scratch = ScratchDirectory()
        let path = scratch.path + "/etc/containerd/certs.d"
        if !test.existing.isEmpty { try scratch.write(test.existing, below: "etc/containerd/certs.d") }
        var directory = ConfigurationDirectory(path: path)
        directory.exchangesWhole = exchangesWhole
        let plan = try Self.plan(test)

        _ = try directory.configure(plan)
        let once = scratch.files(below: "etc/containerd/certs.d")
        #expect(normalized(once) == normalized(test.expected))
        _ = try directory.configure(plan)
        #expect(scratch.files(below: "etc/containerd/certs.d") == once, "a second run changes nothing")

        var operators = once.filter { $0.key.hasPrefix("_backup/") }
        operators = Dictionary(uniqueKeysWithValues: operators.map { (String($0.key.dropFirst(8)), $0.value) })
        #expect(try directory.cleanUp() != nil)
        #expect(scratch.files(below: "etc/containerd/certs.d") == operators)
        #expect(try directory.cleanUp() == nil, "a second clean-up has nothing to do")
        #expect(scratch.files(below: "etc/containerd/certs.d") == operators)
        // Every byte of the operator's files is somewhere, under its name; mirrors are taken out of generated files.
        for (name, text) in test.existing where !name.hasPrefix("_backup/") {
            guard !HostsFile.isGenerated(Array(text.utf8), backup: nil),
                let rest = HostsFile.withoutMirrors(Array(text.utf8), mirrors: [], backup: nil)
            else { continue }
            let left = String(decoding: rest, as: UTF8.self)
            #expect(operators.contains { $0.key.hasPrefix(name) && $0.value == left }, "\(name) is lost")
        }
        #expect(scratch.entries(below: "etc/containerd").allSatisfy { !$0.contains("spegel-staging") })
    }

    /// Runs with different registries and clean-ups, in every order of three: the last one decides, and nothing is lost.
    @Test(arguments: [true, false])
    func everyOrderOfThreeRuns(exchangesWhole: Bool) throws {
        let existing = [
            "docker.io/hosts.toml": Self.former, "docker.io/ca.crt": Self.certificate,
            "quay.io/hosts.toml": "server = 'https://quay.io'",
        ]
        let runs: [(name: String, run: (ConfigurationDirectory) throws -> Void, expected: [String: String])] = [
            (
                "docker.io",
                {
                    _ = try $0.configure(
                        .init(
                            registries: [RegistryURL(parsing: "https://docker.io")],
                            targets: [RegistryURL(parsing: "http://127.0.0.1:5000")]))
                },
                ["docker.io/hosts.toml": Self.dockerHub]
            ),
            (
                "all, prepended",
                {
                    _ = try $0.configure(
                        .init(
                            registries: [], targets: [RegistryURL(parsing: "http://127.0.0.1:5000")],
                            prependsExisting: true))
                },
                ["_default/hosts.toml": Self.hosts(nil)]
            ),
            (
                "docker.io, prepended",
                {
                    _ = try $0.configure(
                        .init(
                            registries: [RegistryURL(parsing: "https://docker.io")],
                            targets: [RegistryURL(parsing: "http://127.0.0.1:5000")], prependsExisting: true))
                },
                [
                    "docker.io/hosts.toml": Self.hosts("https://registry-1.docker.io", then: Self.formerHosts),
                    "docker.io/ca.crt": Self.certificate,
                ]
            ),
            ("cleanup", { _ = try $0.cleanUp() }, [:]),
        ]
        for first in runs {
            for second in runs {
                for third in runs {
                    let scratch = ScratchDirectory()
                    try scratch.write(existing)
                    var directory = ConfigurationDirectory(path: scratch.path)
                    directory.exchangesWhole = exchangesWhole
                    for run in [first, second, third] { try run.run(directory) }
                    let expected =
                        third.name == "cleanup"
                        ? existing
                        : third.expected.merging(
                            Dictionary(uniqueKeysWithValues: existing.map { ("_backup/" + $0.key, $0.value) })
                        ) { $1 }
                    #expect(
                        normalized(scratch.files()) == normalized(expected),
                        "\(first.name), \(second.name), \(third.name)")
                }
            }
        }
    }

    // MARK: Edited files

    /// What an operator makes of a generated file, and what of it a cleanup leaves.
    @Test(
        arguments: [
            // A timeout of the operator's: the mirror is known by the other registry's file.
            (dockerHub.replacingOccurrences(of: "200ms", with: "1s"), nil),
            (
                dockerHub + "[host.'https://third.example']\ncapabilities = ['pull']\n",
                "server = 'https://registry-1.docker.io'\n[host.'https://third.example']\ncapabilities = ['pull']\n"
            ),
            ("# tuned\n" + dockerHub + "\n# the last resort\n", nil),
        ] as [(String, String?)], [true, false])
    func aCleanupLeavesNoMirrorOfAnEditedFile(
        edited: (text: String, left: String?), configuresAgain: Bool
    ) throws {
        let scratch = ScratchDirectory()
        try scratch.write(["quay.io/hosts.toml": "server = 'https://quay.io'"])
        let directory = ConfigurationDirectory(path: scratch.path)
        let plan = try MirrorConfigurationPlan(
            registries: [RegistryURL(parsing: "https://docker.io"), RegistryURL(parsing: "https://ghcr.io")],
            targets: [RegistryURL(parsing: "http://127.0.0.1:5000")])
        _ = try directory.configure(plan)
        try scratch.write(["docker.io/hosts.toml": edited.text])
        if configuresAgain { _ = try directory.configure(plan) }
        _ = try directory.cleanUp()
        var expected = ["quay.io/hosts.toml": "server = 'https://quay.io'"]
        if let left = edited.left { expected["docker.io/hosts.toml"] = left }
        #expect(normalized(scratch.files()) == normalized(expected))
    }

    // MARK: Bad input

    @Test func malformedFileToPrependTo() throws {
        let scratch = ScratchDirectory()
        try scratch.write(["docker.io/hosts.toml": "[host.\nx", "docker.io/ca.crt": Self.certificate])
        let before = scratch.files()
        let plan = MirrorConfigurationPlan(
            registries: [try RegistryURL(parsing: "https://docker.io")],
            targets: [try RegistryURL(parsing: "http://127.0.0.1:5000")],
            prependsExisting: true)
        let error = #expect(throws: HostsConfigurationError.self) {
            try ConfigurationDirectory(path: scratch.path).configure(plan)
        }
        #expect(error?.description.contains("docker.io/hosts.toml") == true)
        #expect(scratch.files() == before)
        #expect(scratch.entries() == ["docker.io", "docker.io/ca.crt", "docker.io/hosts.toml"])
    }

    @Test func aFileInPlaceOfTheDirectory() throws {
        let scratch = ScratchDirectory()
        try scratch.write(["certs.d": "not a directory"])
        let plan = MirrorConfigurationPlan(registries: [], targets: [try RegistryURL(parsing: "http://127.0.0.1:5000")])
        let error = #expect(throws: HostsConfigurationError.self) {
            try ConfigurationDirectory(path: scratch.path + "/certs.d").configure(plan)
        }
        #expect(error?.description.contains(scratch.path + "/certs.d") == true)
        #expect(scratch.files() == ["certs.d": "not a directory"])
    }

    @Test(arguments: [true, false])
    func linksAreKept(exchangesWhole: Bool) throws {
        let scratch = ScratchDirectory()
        try scratch.write([
            "elsewhere/hosts.toml": Self.former, "elsewhere/ca.crt": Self.certificate, "certs.d/README": "mine",
        ])
        try FileManager.default.createSymbolicLink(
            atPath: scratch.path + "/certs.d/docker.io", withDestinationPath: "../elsewhere")
        try FileManager.default.createSymbolicLink(atPath: scratch.path + "/link", withDestinationPath: "certs.d")
        var directory = ConfigurationDirectory(path: scratch.path + "/link")
        directory.exchangesWhole = exchangesWhole
        let plan = MirrorConfigurationPlan(
            registries: [try RegistryURL(parsing: "https://docker.io")],
            targets: [try RegistryURL(parsing: "http://127.0.0.1:5000")],
            prependsExisting: true)
        for _ in 0..<2 {
            _ = try directory.configure(plan)
            let files = scratch.files(below: "certs.d")
            #expect(
                normalized(files["docker.io/hosts.toml"] ?? "")
                    == normalized(Self.hosts("https://registry-1.docker.io", then: Self.formerHosts)))
            #expect(files["docker.io/ca.crt"] == Self.certificate)
            #expect(
                try FileManager.default.destinationOfSymbolicLink(atPath: scratch.path + "/certs.d/_backup/docker.io")
                    == "../elsewhere")
        }
        _ = try directory.cleanUp()
        #expect(
            try FileManager.default.destinationOfSymbolicLink(atPath: scratch.path + "/certs.d/docker.io")
                == "../elsewhere")
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: scratch.path + "/link") == "certs.d")
        #expect(scratch.files(below: "elsewhere") == ["hosts.toml": Self.former, "ca.crt": Self.certificate])
    }

    @Test func modesAreKeptAndCredentialsAreNotForAll() throws {
        let scratch = ScratchDirectory()
        try scratch.write(["docker.io/hosts.toml": Self.former, "docker.io/client.key": "secret"])
        try FileManager.default.setAttributes(
            [.posixPermissions: 0o600], ofItemAtPath: scratch.path + "/docker.io/client.key")
        let plan = MirrorConfigurationPlan(
            registries: [try RegistryURL(parsing: "https://docker.io")],
            targets: [try RegistryURL(parsing: "http://127.0.0.1:5000")],
            prependsExisting: true, authorization: "Basic eDp5")
        _ = try ConfigurationDirectory(path: scratch.path).configure(plan)
        func mode(_ name: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: scratch.path + "/" + name)[.posixPermissions] as? Int
        }
        #expect(try mode("docker.io/client.key") == 0o600)
        #expect(try mode("_backup/docker.io/client.key") == 0o600)
        #expect(try mode("docker.io/hosts.toml") == 0o600)
    }

    @Test(arguments: [
        "ghcr.io", "ftp://ghcr.io", "https://ghcr.io/path", "https://ghcr.io?x=1", "https://user@ghcr.io", "https://",
        "https://a b", "https://ghcr.io:0", "https://ghcr.io:x", "https://..", "https://[::1",
    ])
    func badRegistries(text: String) {
        #expect(throws: RegistryURLError.self) { try RegistryURL(parsing: text) }
    }

    @Test func theWildcardIsNoMirror() {
        #expect(throws: RegistryURLError.self) { try RegistryURL(parsingMirrorTarget: "_default") }
    }
}

/// What a crash leaves: a process ends itself by SIGKILL after each step of its way.
@Suite struct CrashConsistencyTests {
    static let existing = [
        "docker.io/hosts.toml": HostsConfigurationTests.former, "docker.io/ca.crt": HostsConfigurationTests.certificate,
        "quay.io/hosts.toml": "server = 'https://quay.io'",
    ]

    static func run(_ command: String, _ directory: String, step: Int, _ way: String) throws -> Int32 {
        let process = Process()
        process.executableURL = Bundle.main.bundleURL.deletingLastPathComponent().appendingPathComponent(
            "configuration-writer")
        if !FileManager.default.isExecutableFile(atPath: process.executableURL?.path ?? "") {
            process.executableURL = URL(
                fileURLWithPath: FileManager.default.currentDirectoryPath + "/.build/debug/configuration-writer")
        }
        process.arguments = [command, directory, "\(step)", way]
        try process.run()
        process.waitUntilExit()
        return process.terminationReason == .uncaughtSignal ? -process.terminationStatus : process.terminationStatus
    }

    @Test(arguments: ["whole", "entries"], ["configure", "cleanup"])
    func oldOrNewAfterEveryStep(way: String, command: String) throws {
        // What a run that is not disturbed makes of it.
        func prepared() throws -> ScratchDirectory {
            let scratch = ScratchDirectory()
            try scratch.write(Self.existing, below: "certs.d")
            if command == "cleanup" {
                #expect(try Self.run("configure", scratch.path + "/certs.d", step: 0, "whole") == 0)
            }
            return scratch
        }
        let undisturbed = try prepared()
        let old = undisturbed.files(below: "certs.d")
        #expect(try Self.run(command, undisturbed.path + "/certs.d", step: 0, way) == 0)
        let new = undisturbed.files(below: "certs.d")
        #expect(old != new)

        var step = 1
        var sawNew = false
        while true {
            let scratch = try prepared()
            let status = try Self.run(command, scratch.path + "/certs.d", step: step, way)
            if status == 0 { break }
            #expect(status == -SIGKILL)
            let left = scratch.files(below: "certs.d").filter { !$0.key.contains(".spegel-staging") }
            if way == "whole" {
                #expect(left == old || left == new, "step \(step): neither the old nor the new configuration")
                sawNew = sawNew || left == new
            } else {
                // Entry by entry: each registry has its old or its new directory.
                for name in ["docker.io", "quay.io", "ghcr.io", "_backup"] {
                    func part(_ files: [String: String]) -> [String: String] {
                        files.filter { $0.key.hasPrefix(name + "/") }
                    }
                    #expect(part(left) == part(old) || part(left) == part(new), "step \(step): \(name) is half written")
                }
            }
            // The next run completes it, and every file of the operator is there.
            #expect(try Self.run(command, scratch.path + "/certs.d", step: 0, way) == 0)
            #expect(scratch.files(below: "certs.d") == new, "step \(step): the next run does not complete it")
            #expect(
                scratch.entries().allSatisfy { !$0.contains("spegel-staging") },
                "step \(step): something is left behind")
            step += 1
            try #require(step < 50)
        }
        #expect(step > 3)
        #expect(way == "entries" || sawNew)
    }

    @Test func aCleanupAfterABrokenConfiguration() throws {
        for way in ["whole", "entries"] {
            for step in 1..<12 {
                let scratch = ScratchDirectory()
                try scratch.write(Self.existing, below: "certs.d")
                _ = try Self.run("configure", scratch.path + "/certs.d", step: step, way)
                #expect(try Self.run("cleanup", scratch.path + "/certs.d", step: 0, way) == 0)
                #expect(scratch.files(below: "certs.d") == Self.existing, "\(way), step \(step)")
            }
        }
    }
}
