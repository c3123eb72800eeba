"""The alert rules and the dashboard of deploy/monitoring, with Prometheus' own tool."""

import json
import re
import subprocess

import yaml

from helm import ROOT

MONITORING = ROOT / "deploy/monitoring"


def rules():
    return yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)


def test_the_rules_are_valid():
    result = promtool("check", "rules", "alerts.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_fire_for_the_faults_they_name_and_not_without_them():
    result = promtool("test", "rules", "promtool-tests.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    tests = yaml.safe_load((MONITORING / "promtool-tests.yaml").read_text())["tests"]
    for alert in (rule["alert"] for rule in rules()):
        expected = [test["alert_rule_test"][0]["exp_alerts"] for test in tests if test["alert_rule_test"][0]["alertname"] == alert]
        assert sorted(len(alerts) for alerts in expected) == [0, 1], alert


def test_the_page_explains_each_panel_and_alert():
    page = (ROOT / "docs/monitoring.md").read_text()
    for rule in rules():
        assert f"| {rule['alert']} | {rule['labels']['severity']} | {rule['annotations']['description']} |" in page
    for panel in json.loads((MONITORING / "spegel-dashboard.json").read_text())["panels"]:
        wanted = f"### {panel['title']}\n" if panel["type"] == "row" else f"| {panel['title']} | {panel['description']} |"
        assert wanted in page


def test_the_dashboard_is_whole(tmp_path):
    dashboard = json.loads((MONITORING / "spegel-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    expressions = []
    for panel in panels:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        mine = {(x, y) for x in range(position["x"], position["x"] + position["w"]) for y in range(position["y"], position["y"] + position["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            expressions.append(target["expr"])
    # Each expression is one that Prometheus can read, once Grafana has filled its variables in.
    file = tmp_path / "expressions.yaml"
    groups = []
    for number, expression in enumerate(expressions):
        text = re.sub(r"\$__(rate_interval|range)", "5m", expression).replace("$job", ".+").replace("$instance", ".+")
        assert "$" not in text, expression
        groups.append({"record": f"panel:{number}", "expr": text})
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": groups}]}))
    result = promtool("check", "rules", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
