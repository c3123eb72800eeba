import Foundation
import Testing

@testable import SpegelCommands

/// What the documentation repeats from the sources has to be the same.
@Suite struct DocumentationTests {
    private func read(_ path: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    @Test func everyOptionIsDescribed() throws {
        let page = try read("docs/configuration.md")
        let catalogue = OptionCatalogue.spegel
        for (command, options) in catalogue.commands {
            #expect(page.contains("`\(command)"), "\(command)")
            for option in options.keys {
                #expect(page.contains("`--\(option)`"), "--\(option) of \(command)")
            }
        }
        for option in catalogue.global.keys {
            #expect(page.contains("`--\(option)`"), "--\(option)")
        }
    }

    @Test func onlyOptionsThatExistAreDescribed() throws {
        let page = try read("docs/configuration.md")
        let catalogue = OptionCatalogue.spegel
        let known = Set(catalogue.global.keys).union(catalogue.commands.values.flatMap(\.keys)).union(["x"])
        for match in page.matches(of: /`--([a-z-]+)/) {
            #expect(known.contains(String(match.1)), "--\(match.1)")
        }
    }

    @Test(arguments: ["PeerToPeerNode", "RegistryOnly"]) func theExamplesAreTheCompiledOnes(name: String) throws {
        let source = try read("Examples/\(name)/\(name).swift")
        #expect(try read("docs/embedding.md").contains("```swift\n\(source)```"))
    }
}
