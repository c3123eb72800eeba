// swift-tools-version: 6.1

import PackageDescription

// Without MemberImportVisibility: release builds (Swift 6.3) take the members of `timespec` and `timeval` for those of a
// module that cannot be imported.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
]

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
]

// `spegel version` says which commit it is of: scripts/image and scripts/dist set this. A C target takes it, because Swift has no
// definitions with values; only that file is compiled anew when the commit changes.
let commit = (Context.environment["SPEGEL_COMMIT"] ?? "").filter {
    $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-")
}

let package = Package(
    name: "spegel",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "OCIDistribution", targets: ["OCIDistribution"]),
        .library(name: "ContentStore", targets: ["ContentStore"]),
        // On its own, as it brings gRPC.
        .library(name: "ContainerdContentStore", targets: ["ContainerdContentStore"]),
        // For the tests of another store.
        .library(name: "ContentStoreConformance", targets: ["ContentStoreConformance"]),
        .library(name: "PeerRouting", targets: ["PeerRouting"]),
        .library(name: "MirrorServer", targets: ["MirrorServer"]),
        .executable(name: "spegel", targets: ["spegel"]),
    ],
    // Within a minor version: a new one has new behaviour, which is looked at here before it reaches users. Package.resolved is not
    // committed, because it would bind those who embed the libraries to one version of everything.
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", .upToNextMinor(from: "2.101.0")),
        .package(url: "https://github.com/apple/swift-nio-ssl", .upToNextMinor(from: "2.37.0")),
        .package(url: "https://github.com/apple/swift-log", .upToNextMinor(from: "1.16.0")),
        .package(url: "https://github.com/apple/swift-metrics", .upToNextMinor(from: "2.13.0")),
        .package(url: "https://github.com/apple/swift-crypto", .upToNextMinor(from: "4.5.0")),
        .package(url: "https://github.com/apple/swift-collections", .upToNextMinor(from: "1.6.0")),
        .package(url: "https://github.com/apple/swift-argument-parser", .upToNextMinor(from: "1.8.0")),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", .upToNextMinor(from: "2.13.0")),
        .package(url: "https://github.com/swift-server/async-http-client", .upToNextMinor(from: "1.37.0")),
        .package(url: "https://github.com/apple/swift-protobuf", .upToNextMinor(from: "1.39.0")),
        .package(url: "https://github.com/grpc/grpc-swift-2", .upToNextMinor(from: "2.4.0")),
        .package(url: "https://github.com/grpc/grpc-swift-nio-transport", .upToNextMinor(from: "2.9.0")),
        .package(url: "https://github.com/grpc/grpc-swift-protobuf", .upToNextMinor(from: "2.4.0")),
        .package(url: "https://github.com/LebJe/TOMLKit", .upToNextMinor(from: "0.6.0")),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", .upToNextMinor(from: "0.2.0")),
    ],
    targets: [
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .target(name: "CBuildInfo", cSettings: [.define("SPEGEL_COMMIT", to: "\"\(commit)\"")]),
        .target(
            name: "OCIDistribution",
            dependencies: ["COpenSSL", "CZlib"],
            swiftSettings: strict
        ),
        // The contract of everything that starts once and is shut down once, and the words for errors of connections.
        .target(
            name: "ServiceSupport",
            dependencies: [
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "ContentStore",
            dependencies: [
                "OCIDistribution", "ResourceLimits", "ServiceSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "ContainerdContentStore",
            dependencies: [
                "ContentStore", "OCIDistribution", "ServiceSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "GRPCCore", package: "grpc-swift-2"),
                .product(name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport"),
                .product(name: "GRPCProtobuf", package: "grpc-swift-protobuf"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ] + nio,
            swiftSettings: strict
        ),
        // The vocabulary of peers and the protocol of a router, without cryptography, TLS or an HTTP client.
        .target(
            name: "PeerRoutingCore", dependencies: ["ContentClaims", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: strict),
        .target(
            name: "ResourceLimits",
            dependencies: [
                "PeerRoutingCore",
                .product(name: "Logging", package: "swift-log"),
            ] + nio,
            swiftSettings: strict
        ),
        // Identities and connections: everything of libp2p below the DHT.
        .target(
            name: "Libp2p",
            dependencies: [
                "PeerRoutingCore", "ResourceLimits", "ServiceSupport",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "DequeModule", package: "swift-collections"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "PeerRouting",
            dependencies: [
                "PeerRoutingCore", "ContentClaims", "Libp2p", "ResourceLimits", "ServiceSupport",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "HTTPServer",
            dependencies: [
                "OCIDistribution", "ContentStore", "ResourceLimits", "ServiceSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "PrometheusMetrics",
            dependencies: ["CZlib", .product(name: "Metrics", package: "swift-metrics")],
            swiftSettings: strict
        ),
        .target(
            name: "MirrorServer",
            dependencies: [
                "OCIDistribution", "ContentStore", "HTTPServer", "PrometheusMetrics", "PeerRoutingCore",
                "ResourceLimits", "ServiceSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(name: "CNodeSystem"),
        .target(
            name: "NodeConfiguration",
            dependencies: ["CNodeSystem", "OCIDistribution", .product(name: "TOMLKit", package: "TOMLKit")],
            swiftSettings: strict
        ),
        .target(
            name: "RegistryClient",
            dependencies: [
                "OCIDistribution", "ContentStore", "ServiceSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "SpegelCommands",
            dependencies: [
                "OCIDistribution", "ContentStore", "ContainerdContentStore", "PeerRouting", "PeerRoutingCore",
                "Libp2p", "MirrorServer",
                // Re-exported by MirrorServer; named, so that a change of theirs compiles this again.
                "HTTPServer", "PrometheusMetrics",
                "RegistryClient", "NodeConfiguration", "ServiceSupport", "CNodeSystem", "CBuildInfo",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ] + nio,
            swiftSettings: strict
        ),
        // The arbiter of the cold start: who fetches content that no node has, and who follows whom.
        .target(
            name: "ContentClaims",
            dependencies: [
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "OrderedCollections", package: "swift-collections"),
            ], swiftSettings: strict),
        .testTarget(
            name: "ContentClaimsTests", dependencies: ["ContentClaims", "PeerRoutingCore", "TestSupport"],
            swiftSettings: strict),
        .executableTarget(name: "spegel", dependencies: ["SpegelCommands"], swiftSettings: strict),
        // Outside the daemon, which need not carry it.
        .executableTarget(
            name: "demo",
            dependencies: [
                "SpegelCommands", "OCIDistribution", "ContentStore", "PeerRouting", "MirrorServer", "HTTPServer",
                "RegistryClient", "CNodeSystem",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            path: "Sources/Demo",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "RegistryOnly",
            dependencies: [
                "OCIDistribution", "ContentStore", "MirrorServer",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            path: "Examples/RegistryOnly",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "PeerToPeerNode",
            dependencies: [
                "ContentStore", "MirrorServer", "PeerRouting",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            path: "Examples/PeerToPeerNode",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "Benchmarks",
            dependencies: [
                "OCIDistribution", "ContentStore", "PeerRouting", "PeerRoutingCore", "Libp2p", "MirrorServer",
                "ContainerdContentStore", "ContainerdTestKit", "ContentStoreConformance", "TestSupport",
                // Not linked: the daemon that is measured, built together with its measurement.
                "spegel",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            path: "Benchmarks",
            exclude: ["hot-paths.json"],
            swiftSettings: strict
        ),
        .testTarget(name: "OCIDistributionTests", dependencies: ["OCIDistribution", "CZlib"], swiftSettings: strict),
        // What tests of every module need: children, temporary directories, waiting.
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
        .target(
            name: "ContentStoreConformance",
            dependencies: ["ContentStore", "OCIDistribution"] + nio,
            path: "Tests/ContentStoreConformance",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "store-writer",
            dependencies: ["ContentStore", "OCIDistribution", .product(name: "Logging", package: "swift-log")] + nio,
            path: "Tests/Tools/StoreWriter",
            swiftSettings: strict
        ),
        .testTarget(
            name: "ContentStoreTests",
            dependencies: [
                "ContentStore", "ContentStoreConformance", "OCIDistribution", "TestSupport", "store-writer",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "ContainerdTestKit",
            dependencies: [
                "ContentStoreConformance", "OCIDistribution", "TestSupport",
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            path: "Tests/ContainerdTestKit",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "containerd-probe",
            dependencies: [
                "ContainerdContentStore", "ContentStore", .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/Tools/ContainerdProbe",
            swiftSettings: strict
        ),
        .testTarget(
            name: "ContainerdTests",
            dependencies: [
                "ContainerdContentStore", "ContainerdTestKit", "ContentStore", "ContentStoreConformance",
                "OCIDistribution", "TestSupport", "containerd-probe",
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "Logging", package: "swift-log"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "PeerTestKit",
            dependencies: ["Libp2p", "TestSupport", .product(name: "Logging", package: "swift-log")] + nio,
            path: "Tests/PeerTestKit",
            resources: [.copy("Vectors")],
            swiftSettings: strict
        ),
        .testTarget(
            name: "PeerRoutingCoreTests",
            dependencies: ["PeerRoutingCore", "PeerTestKit", "Libp2p"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "Libp2pTests",
            dependencies: [
                "Libp2p", "ResourceLimits", "PeerTestKit", "TestSupport",
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
            ] + nio,
            swiftSettings: strict
        ),
        .testTarget(
            name: "PeerRoutingTests",
            dependencies: [
                "PeerRouting", "Libp2p", "PeerRoutingCore", "PeerTestKit", "TestSupport",
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
            ] + nio,
            swiftSettings: strict
        ),
        .testTarget(
            name: "MirrorTests",
            dependencies: [
                "MirrorServer", "ContentStore", "OCIDistribution", "PeerRouting", "PeerRoutingCore", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "HTTPTestKit",
            dependencies: ["HTTPServer", .product(name: "Logging", package: "swift-log")] + nio,
            path: "Tests/HTTPTestKit",
            swiftSettings: strict
        ),
        .testTarget(
            name: "HTTPServerTests",
            dependencies: [
                "HTTPServer", "HTTPTestKit", .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "PrometheusMetricsTests",
            dependencies: ["PrometheusMetrics", .product(name: "Metrics", package: "swift-metrics")],
            swiftSettings: strict
        ),
        .testTarget(
            name: "MirrorServerTests",
            dependencies: [
                "MirrorServer", "HTTPTestKit", "ContentClaims", "ContentStore", "OCIDistribution", "PeerRouting",
                "TestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "SpegelCommandsTests",
            dependencies: [
                "SpegelCommands", "NodeConfiguration", "ContentStore", "OCIDistribution", "RegistryClient",
                "TestSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "configuration-writer", dependencies: ["NodeConfiguration"], path: "Tests/Tools/ConfigurationWriter",
            swiftSettings: strict),
        .testTarget(
            name: "NodeConfigurationTests", dependencies: ["NodeConfiguration", "configuration-writer"],
            resources: [.copy("Fixtures")], swiftSettings: strict),
        .testTarget(
            name: "RegistryClientTests",
            dependencies: ["RegistryClient", .product(name: "NIOHTTP1", package: "swift-nio")],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "router-node",
            dependencies: [
                "PeerRouting", "Libp2p", "PeerRoutingCore", .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/Tools/RouterNode",
            swiftSettings: strict
        ),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "OCIDistribution", "ContentStore", "ContainerdContentStore", "PeerRouting", "MirrorServer",
                "TestSupport",
                "spegel", "demo", "router-node", "Benchmarks",
            ],
            swiftSettings: strict
        ),
    ]
)
