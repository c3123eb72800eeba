"""Derives files from the chart: the table of values, goldens, kustomize's objects, copies that Helm needs inside the chart.

`expected()` says what they are to contain; the tests compare, `scripts/chart generate` writes.
"""

import difflib
import json
import sys
from pathlib import Path

import helm_python
import yaml

import helm
from helm import CHART, ROOT

GOLDEN = Path(__file__).with_name("golden")
KUSTOMIZE = ROOT / "deploy/kustomize"
MONITORING = {"grafana-dashboard.json": "*dashboard*.json", "alerts.yaml": "*alert*.y*ml"}


def leaves(schema, values, path=""):
    """Every value as (path, schema, default)."""
    for key, part in schema["properties"].items():
        name = f"{path}.{key}" if path else key
        if "properties" in part:
            yield from leaves(part, values[key], name)
        else:
            yield name, part, values[key]


def values_table():
    """The table of values in the chart's README."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.load((CHART / "values.yaml").read_text(), helm.Loader)
    rows = ["| value | default | |", "| --- | --- | --- |"]
    for name, part, default in leaves(schema, values):
        meaning = part["description"]
        if "enum" in part:
            meaning += " One of " + ", ".join(f"`{item or '(empty)'}`" for item in part["enum"]) + "."
        shown = "" if default in ("", None) else "`" + json.dumps(default, separators=(", ", ": ")).replace("|", "\\|") + "`"
        rows.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(rows)


def readme():
    begin, end = "<!-- values: written by scripts/chart generate -->\n", "<!-- end of values -->\n"
    text = (CHART / "README.md").read_text()
    return text.split(begin)[0] + begin + "\n" + values_table() + "\n\n" + end + text.split(end)[1]


def goldens():
    """The objects of the default values, and of every other set what differs from them."""
    sets = helm.value_sets()
    default = next(item for item in sets if item.name == "default").manifest()
    yield GOLDEN / "default.yaml", default
    for item in sets:
        if item.name != "default":
            lines = difflib.unified_diff(
                default.splitlines(), item.manifest().splitlines(), "default", item.name, lineterm="")
            yield GOLDEN / f"{item.name}.diff", "".join(f"{line}\n" for line in lines)


def kustomize_values(**values):
    return {"image": {"repository": "spegel"}, **values}


def without_helm(text):
    """A manifest without the marks that only Helm's releases carry, and without its hooks."""
    documents = []
    for part in text.removeprefix("---\n").split("\n---\n"):
        item = yaml.load(part, helm.Loader)
        if "helm.sh/hook" not in item["metadata"].get("annotations", {}):
            lines = [line for line in part.strip("\n").splitlines() if "helm.sh/" not in line and "managed-by: Helm" not in line]
            documents.append("\n".join(lines) + "\n")
    return documents


def added(values):
    """The objects that values add to those of the default values."""
    before = without_helm(helm.manifest(kustomize_values(), chart=CHART))
    return [part for part in without_helm(helm.manifest(kustomize_values(**values), chart=CHART)) if part not in before]


def kustomize():
    """The objects of the kustomize base and overlays: what the chart makes of its defaults, or adds to them."""
    note = "# Made from the chart by scripts/chart generate.\n"
    base = without_helm(helm.manifest(kustomize_values()))
    yield KUSTOMIZE / "base/spegel.yaml", note + "---\n".join(base)
    yield KUSTOMIZE / "overlays/prep/containerd-prep.yaml", note + "---\n".join(added({"containerdPrep": {"enabled": True}}))
    monitoring = {"serviceMonitor": {"enabled": True}}
    if (CHART / "monitoring/alerts.yaml").exists():
        monitoring["prometheusRule"] = {"enabled": True}
    if (CHART / "monitoring/grafana-dashboard.json").exists():
        monitoring["grafanaDashboard"] = {"enabled": True, "labels": {"grafana_dashboard": "1"}}
    yield KUSTOMIZE / "overlays/monitoring/monitoring.yaml", note + "---\n".join(added(monitoring))
    cleanup = []
    for part in helm.manifest(kustomize_values()).removeprefix("---\n").split("\n---\n"):
        item = yaml.load(part, helm.Loader)
        if "helm.sh/hook" in item["metadata"].get("annotations", {}):
            lines = part.strip("\n").splitlines()
            lines = [line for line in lines if "helm.sh/" not in line and "managed-by: Helm" not in line]
            lines = [line for line in lines if line != "  annotations:"]
            cleanup.append("\n".join(lines) + "\n")
    yield KUSTOMIZE / "cleanup/cleanup.yaml", note + "---\n".join(cleanup)


def monitoring():
    """What the chart includes from deploy/monitoring: Helm reads no file outside a chart."""
    for name, pattern in MONITORING.items():
        found = sorted((ROOT / "deploy/monitoring").glob(pattern))
        if found:
            assert len(found) == 1, f"several files for {name}: {found}"
            yield CHART / "monitoring" / name, found[0].read_text()


def copies():
    """What has to be there before the chart is rendered."""
    # A chart cannot read its own values.yaml, which the notes compare the given values with.
    yield CHART / "files/values.yaml", (CHART / "values.yaml").read_text()
    yield from monitoring()


def derived():
    """What is rendered."""
    yield CHART / "README.md", readme()
    yield from goldens()
    yield from kustomize()


def write(files):
    for path, text in files:
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path.relative_to(ROOT))


def main(arguments):
    match arguments:
        case ["generate"]:
            write(copies())
            wanted = list(derived())
            write(wanted)
            for path in set(GOLDEN.iterdir()) - {path for path, _ in wanted}:
                path.unlink()
                print("removed", path.relative_to(ROOT))
        case ["package", directory]:
            Path(directory).mkdir(parents=True, exist_ok=True)
            print(helm_python.package(CHART, destination=directory))
        case _:
            sys.exit("usage: scripts/chart generate | package DIRECTORY")


if __name__ == "__main__":
    main(sys.argv[1:])
