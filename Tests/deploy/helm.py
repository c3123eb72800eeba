"""Renders charts with Helm's own engine, for the tests and for scripts/chart."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import helm_python
import yaml
from helm_python import _native

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/charts/spegel"
NEWEST = "v1.37.0"
OLDEST = "v1.28.0"
IMAGE = {"repository": "registry.example.com/spegel"}


class Loader(yaml.SafeLoader):
    """Refuses a mapping with the same key twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"keys given twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


@functools.cache
def stand_in():
    """A copy of the chart with a small dashboard and one alert: goldens are not to change with deploy/monitoring."""
    directory = Path(tempfile.mkdtemp(prefix="spegel-chart-"))
    atexit.register(shutil.rmtree, directory)
    chart = directory / "spegel"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("monitoring"))
    (chart / "monitoring").mkdir()
    (chart / "monitoring/grafana-dashboard.json").write_text('{\n  "title": "{{ node }}"\n}\n')
    (chart / "monitoring/alerts.yaml").write_text(
        "groups:\n  - name: spegel\n    rules:\n      - alert: SpegelDown\n        expr: up == 0\n"
        "        annotations:\n          summary: '{{ $labels.instance }} is down'\n")
    return chart


def templates(values, *, chart=None, name="spegel", namespace="spegel", kube_version=NEWEST, api_versions=()):
    """What each template renders to, by its file name. Values are checked against the chart's schema first."""
    options = {"name": name, "namespace": namespace, "kube_version": kube_version, "api_versions": list(api_versions)}
    with helm_python.Chart.load(chart or stand_in()) as loaded:
        # The wrapper's own render() has no parameters for the cluster's version and APIs; the library does.
        answer = _native.call_string("helm_render", loaded._raw(), json.dumps(values), json.dumps(options))
    return {key.split("/templates/", 1)[1]: text for key, text in json.loads(answer).items()}


def manifest(values, **options):
    """All objects as one YAML text, in the order of the templates' names; without the notes."""
    parts = templates(values, **options)
    texts = [parts[name].strip("\n") for name in sorted(parts) if name.endswith(".yaml") and parts[name].strip()]
    return "---\n" + "\n---\n".join(text.removeprefix("---\n") for text in texts) + "\n"


def objects(values, **options):
    """All objects."""
    return [item for item in yaml.load_all(manifest(values, **options), Loader) if item]


def one(items, kind, name):
    """The only object of this kind and name."""
    found = [item for item in items if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}"
    return found[0]


class ValueSet:
    """Values with the cluster they are for; a file of `sets/`."""

    def __init__(self, path):
        content = yaml.load(path.read_text(), Loader)
        self.name = path.stem
        self.source = content["source"]
        self.values = content.get("values") or {}
        self.options = {
            "kube_version": content.get("kubeVersion", NEWEST),
            "api_versions": content.get("apiVersions", []),
            "name": content.get("release", "spegel"),
            "namespace": content.get("namespace", "spegel"),
        }
        # No image is published, so every set needs one; those that are about the image bring their own.
        self.complete = {**self.values, "image": {**IMAGE, **self.values.get("image", {})}}

    def manifest(self, **options):
        return manifest(self.complete, **{**self.options, **options})

    def objects(self, **options):
        return objects(self.complete, **{**self.options, **options})


def value_sets():
    return [ValueSet(path) for path in sorted(Path(__file__).with_name("sets").glob("*.yaml"))]
