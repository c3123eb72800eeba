import ContentStore
import OCIDistribution

/// A store under test, and the ways to change it from outside.
///
/// A backend of one's own passes the suite by implementing this and running every one of
/// ``ContentStoreConformance/cases(for:)`` on a fresh instance. The changing methods stand for other programs: they must
/// not go through the store's own write half if there is any other way. They may return before the store has noticed.
public protocol ConformanceBackend: Sendable {
    /// The store under test. It is empty when the backend is new.
    var store: any ContentStore { get }
    /// What the backend can do.
    var features: Set<ConformanceFeature> { get }
    /// Makes content present.
    func put(_ bytes: [UInt8], as digest: Digest) async throws
    /// Makes content absent. Names that lead to it stay.
    func removeContent(_ digest: Digest) async throws
    /// Makes a name lead to a manifest.
    func setImage(_ reference: Reference, to target: Descriptor) async throws
    /// Removes a name.
    func removeImage(_ reference: Reference) async throws
    /// Gives back whatever the backend holds.
    func tearDown() async throws
}

/// What not every backend can do.
public enum ConformanceFeature: Sendable, Hashable, CaseIterable {
    /// The store is a `WritableContentStore`.
    case writing
    /// Names may lead to content that is absent.
    case absentTargets
    /// Content may be present that no image refers to.
    case unreferencedContent
    /// Content may have SHA-512 digests.
    case sha512
    /// Content may be empty.
    case emptyContent
    /// Content of known size can be read while it is written.
    case arrivingContent
    /// The `…Immediately` forms always know.
    case immediateAnswers
}

/// One requirement on every store.
public struct ConformanceCase: Sendable, CustomStringConvertible {
    /// What is required, in words.
    public let name: String
    /// What a backend must be able to do for the case to make sense.
    public let needs: Set<ConformanceFeature>
    /// Checks the requirement on a fresh backend.
    ///
    /// - Throws: ``ConformanceFailure`` when it is not met, or the store's error.
    public let run: @Sendable (any ConformanceBackend) async throws -> Void

    /// Creates a case.
    public init(
        _ name: String, needs: Set<ConformanceFeature> = [],
        run: @escaping @Sendable (any ConformanceBackend) async throws -> Void
    ) {
        self.name = name
        self.needs = needs
        self.run = run
    }

    /// The name.
    public var description: String { name }
}

/// A requirement that is not met.
public struct ConformanceFailure: Error, CustomStringConvertible {
    /// What was expected and what happened.
    public let description: String

    /// Creates a failure.
    public init(_ description: String) { self.description = description }
}

/// What every content store must do.
public enum ContentStoreConformance {
    /// All cases.
    public static let cases: [ConformanceCase] =
        readingCases + imageCases + eventCases + writingCases + arrivingCases

    /// The cases that make sense for a backend with these features.
    public static func cases(for features: Set<ConformanceFeature>) -> [ConformanceCase] {
        cases.filter { $0.needs.isSubset(of: features) }
    }
}

// MARK: Checks

func require(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    guard condition else { throw ConformanceFailure(message()) }
}

func requireEqual<Value: Equatable>(_ actual: Value, _ expected: Value, _ what: String) throws {
    guard actual == expected else { throw ConformanceFailure("\(what): expected \(expected), got \(actual)") }
}

func requireValue<Value>(_ value: Value?, _ what: String) throws -> Value {
    guard let value else { throw ConformanceFailure("\(what): got nothing") }
    return value
}

/// Asks again until an answer is as it should be. The limit only keeps a failing test from hanging.
func eventually(_ what: String, _ check: () async throws -> Bool) async throws {
    let limit = ContinuousClock.now + .seconds(60)
    while try await !check() {
        guard ContinuousClock.now < limit else { throw ConformanceFailure("never became true: \(what)") }
        try await Task.sleep(for: .milliseconds(10))
    }
}

func eventuallyEqual<Value: Equatable & Sendable>(
    _ expected: Value, _ what: String, _ value: () async throws -> Value
) async throws {
    let limit = ContinuousClock.now + .seconds(60)
    while true {
        let actual = try await value()
        if actual == expected { return }
        guard ContinuousClock.now < limit else {
            throw ConformanceFailure("\(what): expected \(expected), still \(actual)")
        }
        try await Task.sleep(for: .milliseconds(10))
    }
}
