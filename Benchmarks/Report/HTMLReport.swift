import Foundation

/// The report as one HTML file without scripts or references to others: tables, and a plot of each section.
enum HTMLReport {
    static func page(_ report: Report) -> String {
        let formatter = ISO8601DateFormatter()
        var body = "<h1>Benchmarks of spegel</h1>\n"
        body += "<p class=\"machine\">\(escape(report.machine.description)); \(report.machine.build) build; "
        body += "\(formatter.string(from: report.date))</p>\n"
        if let warning = report.machine.warning { body += "<p class=\"warning\">\(escape(warning))</p>\n" }
        if !report.settings.isEmpty {
            let settings = report.settings.sorted { $0.key < $1.key }.map { "--\($0.key) \($0.value)" }
            body += "<p>Settings: <code>\(escape(settings.joined(separator: " ")))</code></p>\n"
        }
        body += budgets(report.budgets)
        for suite in report.suites { body += self.suite(suite) }
        return """
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width">
            <title>Benchmarks of spegel</title>
            <style>\(style)</style>
            </head>
            <body>
            \(body)<p class="legend">A bar is the median of the rounds, the line over it their smallest and largest.</p>
            </body>
            </html>

            """
    }

    private static func budgets(_ budgets: [Budget]) -> String {
        guard !budgets.isEmpty else { return "" }
        var html = "<h2>Budgets</h2>\n<div class=\"scroll\"><table>"
        html += "<tr><th>budget</th><th>required</th><th>measured</th><th></th></tr>\n"
        for budget in budgets {
            let (kind, text) =
                switch budget.status {
                case .met: ("met", "met")
                case .failed: ("failed", "FAILED")
                case .notMeasured: ("open", "not measured")
                }
            html += "<tr><td>\(escape(budget.name))</td><td>\(escape(budget.requirement))</td>"
            html += "<td>\(escape(budget.measured))</td><td class=\"\(kind)\">\(text)</td></tr>\n"
        }
        return html + "</table></div>\n"
    }

    private static func suite(_ suite: SuiteReport) -> String {
        var html = "<h2 id=\"\(suite.name)\">\(suite.name)</h2>\n<p>\(escape(suite.title))</p>\n"
        for note in suite.notes { html += "<p class=\"note\">\(escape(note))</p>\n" }
        if let error = suite.error { html += "<p class=\"warning\">\(escape(error))</p>\n" }
        for section in suite.sections {
            html += "<h3>\(escape(section.title))</h3>\n\(plot(section))\n"
            let table = TextReport.table(section)
            html += "<div class=\"scroll\"><table><tr>"
            for (index, cell) in table.header.enumerated() {
                let kind = index < table.leftAligned ? "" : " class=\"number\""
                html += "<th\(kind)>\(index == 0 ? "" : escape(cell))</th>"
            }
            html += "</tr>\n"
            for row in table.rows {
                html += "<tr>"
                for (index, cell) in row.enumerated() {
                    html += "<td\(index < table.leftAligned ? "" : " class=\"number\"")>\(escape(cell))</td>"
                }
                html += "</tr>\n"
            }
            html += "</table></div>\n"
        }
        return html
    }

    // MARK: Plots

    /// Horizontal bars, those of one group together, the contenders in colours of their own.
    private static func plot(_ section: Section) -> String {
        let largest = section.measurements.map(\.figure.max).max() ?? 0
        guard largest > 0, section.measurements.count > 1 else { return "" }
        let (left, width, bar, gap) = (250.0, 560.0, 18.0, 10.0)
        var names: [String] = []
        for row in section.measurements where !names.contains(row.name) { names.append(row.name) }
        var (y, shapes, group) = (4.0, "", section.measurements.first?.group)
        func x(_ value: Double) -> String { (left + value / largest * width).text(1) }
        for row in section.measurements {
            if row.group != group { y += gap }
            group = row.group
            let color = (names.firstIndex(of: row.name) ?? 0) % 6
            let label = row.group.isEmpty ? row.name : "\(row.name), \(row.group)"
            let middle = (y + bar / 2).text(1)
            shapes += "<text x=\"\((left - 8).text(0))\" y=\"\(middle)\" class=\"label\">\(escape(label))</text>"
            shapes += "<rect x=\"\(left.text(0))\" y=\"\(y.text(1))\" height=\"\(bar.text(0))\" "
            shapes += "width=\"\(max(1, row.figure.median / largest * width).text(1))\" class=\"c\(color)\"/>"
            if row.figure.samples.count > 1 {
                shapes +=
                    "<line x1=\"\(x(row.figure.min))\" x2=\"\(x(row.figure.max))\" y1=\"\(middle)\" y2=\"\(middle)\"/>"
            }
            let text = row.figure.median.text(row.figure.median >= 100 ? 0 : 2)
            shapes +=
                "<text x=\"\((left + row.figure.max / largest * width + 6).text(1))\" y=\"\(middle)\">\(text)</text>\n"
            y += bar + 4
        }
        let better = section.higherIsBetter ? "more is better" : "less is better"
        return """
            <svg viewBox="0 0 900 \((y + 18).text(0))" role="img" aria-label="\(escape(section.title))">
            \(shapes)<text x="\(left.text(0))" y="\((y + 8).text(1))" class="unit">\(escape(section.unit)), \(better)</text>
            </svg>
            """
    }

    private static func escape(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }

    private static let style = """

        :root { color-scheme: light dark; --ink: #1c2530; --dim: #5b6875; --page: #fbfcfd; --line: #d5dce3; --good: #1a7f4b;
          --bad: #b3261e; --c0: #1f6feb; --c1: #9aa7b4; --c2: #2a9d6f; --c3: #c4761b; --c4: #8250df; --c5: #b35588; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --dim: #9aa7b4; --page: #12171d; --line: #323c47;
          --good: #4cc38a; --bad: #ff7b72; --c0: #58a6ff; --c1: #6e7b88; --c2: #3fb98a; --c3: #e09b4a; --c4: #a98bf5; --c5: #dd86b3; } }
        body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 960px;
          margin: 2em auto; padding: 0 1em; }
        h2 { margin-top: 2em; border-bottom: 1px solid var(--line); } h3 { margin: 1.5em 0 .3em; }
        .machine, .note, .legend { color: var(--dim); margin: .2em 0; } .warning, .failed { color: var(--bad); font-weight: 600; }
        .met { color: var(--good); font-weight: 600; } .open { color: var(--dim); }
        .scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; margin: .5em 0; }
        th, td { text-align: left; vertical-align: top; padding: .2em .8em .2em 0; border-bottom: 1px solid var(--line); }
        td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } td:last-child { white-space: nowrap; }
        svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); dominant-baseline: middle; }
        svg .label { text-anchor: end; } svg .unit { fill: var(--dim); } svg line { stroke: var(--ink); stroke-width: 1.5; }
        .c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); } .c4 { fill: var(--c4); }
        .c5 { fill: var(--c5); }

        """
}
