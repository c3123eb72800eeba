/// The report as tables of text.
enum TextReport {
    static func suite(_ suite: SuiteReport) -> String {
        var parts = ["== \(suite.name): \(suite.title) (\(suite.seconds.text(0)) s)"]
        parts += suite.notes.map { "   \($0)" }
        for section in suite.sections { parts.append("\n" + table(section).printed()) }
        if let error = suite.error { parts.append("\nFAILED: \(error)") }
        return parts.joined(separator: "\n") + "\n"
    }

    static func budgets(_ budgets: [Budget]) -> String {
        var table = Table(header: ["budget", "required", "measured", ""])
        table.leftAligned = 4
        for budget in budgets {
            table.rows.append([
                budget.name, budget.requirement, budget.measured, budget.status == .met ? "ok" : budget.status.rawValue,
            ])
        }
        return table.printed()
    }

    /// The columns of a section; those that no row has are left out.
    static func table(_ section: Section) -> Table {
        let rows = section.measurements
        let hasGroup = rows.contains { !$0.group.isEmpty }
        let hasRounds = rows.contains { $0.figure.samples.count > 1 }
        let hasCPU = rows.contains { $0.cpu != nil }
        let hasPeak = rows.contains { $0.peakMiB != nil }
        let ratios = rows.map { section.ratio(of: $0) }
        let hasRatio = ratios.contains { $0 != nil }
        var extras: [String] = []
        for value in rows.flatMap(\.values) where !extras.contains(label(value)) { extras.append(label(value)) }
        var table = Table(header: [section.title])
        if hasGroup {
            table.header.append("")
            table.leftAligned = 2
        }
        table.header.append(section.unit)
        if hasRounds { table.header.append("min - max") }
        if hasRatio { table.header.append("to \(section.baseline ?? "")") }
        if hasCPU { table.header.append("CPU \(section.cpuUnit)") }
        if hasPeak { table.header.append("peak MiB") }
        table.header += extras
        for (row, ratio) in zip(rows, ratios) {
            let places = decimalPlaces(rows.map(\.figure.median).max() ?? 0)
            var cells = [row.name]
            if hasGroup { cells.append(row.group) }
            cells.append(row.figure.median.text(places))
            if hasRounds {
                let mark = row.figure.isWide ? " wide" : ""
                cells.append("\(row.figure.min.text(places)) - \(row.figure.max.text(places))\(mark)")
            }
            if hasRatio { cells.append(ratio?.text(2) ?? "") }
            if hasCPU { cells.append(row.cpu.map { $0.median.text(decimalPlaces($0.median) + 1) } ?? "") }
            if hasPeak { cells.append(row.peakMiB?.text(1) ?? "") }
            for extra in extras {
                cells.append(row.values.first { label($0) == extra }.map { $0.value.text($0.places) } ?? "")
            }
            table.rows.append(cells)
        }
        return table
    }

    private static func label(_ value: Measurement.Value) -> String {
        value.unit.isEmpty ? value.name : "\(value.name) \(value.unit)"
    }

    private static func decimalPlaces(_ value: Double) -> Int { value >= 100 ? 0 : value >= 10 ? 1 : 2 }
}
