"""The kustomize base and overlays: they build, and make what the chart makes."""

import os
import shutil
import stat
import sys

import kubernetes_validate
import pytest
import yaml

import generate
import helm
from cluster import run
from helm import ROOT

KUSTOMIZE = ROOT / "deploy/kustomize"
OVERLAYS = sorted(path.parent.name for path in KUSTOMIZE.glob("overlays/*/kustomization.yaml"))
FOREIGN = {"ServiceMonitor", "PrometheusRule"}


def build(path, *options, **environment):
    return list(yaml.load_all(run("kubectl", "kustomize", *options, path, env={**os.environ, **environment}), helm.Loader))


def from_chart(**values):
    text = "---\n".join(generate.without_helm(helm.manifest(generate.kustomize_values(**values), chart=helm.CHART)))
    return list(yaml.load_all(text, helm.Loader))


def ordered(items):
    return sorted(items, key=lambda item: (item["kind"], item["metadata"]["name"]))


def without_namespace(items):
    return ordered(item for item in items if item["kind"] != "Namespace")


@pytest.mark.parametrize("path", ["base", "cleanup", *(f"overlays/{name}" for name in OVERLAYS)])
def test_objects_are_valid(path):
    # trafficDistribution's value is not in the schema of 1.28, so the overlay for older clusters is held against it.
    version = "1.28" if path.endswith("before-1.34") else "1.37"
    for item in build(KUSTOMIZE / path):
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, version, strict=True)


def test_base_is_the_charts_default():
    assert without_namespace(build(KUSTOMIZE / "base")) == ordered(from_chart())


def test_prep_is_the_charts():
    assert without_namespace(build(KUSTOMIZE / "overlays/prep")) == ordered(from_chart(containerdPrep={"enabled": True}))


def test_dual_stack_is_the_charts():
    assert without_namespace(build(KUSTOMIZE / "overlays/dual-stack")) == ordered(from_chart(service={"ipFamilyPolicy": "PreferDualStack"}))


def test_older_clusters_get_what_the_chart_gives_them():
    text = "---\n".join(generate.without_helm(helm.manifest(generate.kustomize_values(), chart=helm.CHART, kube_version="v1.33.0")))
    assert without_namespace(build(KUSTOMIZE / "overlays/before-1.34")) == ordered(yaml.load_all(text, helm.Loader))


def test_image_is_set_as_the_base_says(tmp_path):
    shutil.copytree(KUSTOMIZE / "base", tmp_path / "base")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [base]\nimages: [{name: spegel, newName: registry.example.com/spegel, newTag: 9.9.9}]\n")
    (daemonset,) = [item for item in build(tmp_path) if item["kind"] == "DaemonSet"]
    spec = daemonset["spec"]["template"]["spec"]
    assert {container["image"] for container in spec["initContainers"] + spec["containers"]} == {"registry.example.com/spegel:9.9.9"}


def test_namespace_lets_the_pods_in():
    (namespace,) = [item for item in build(KUSTOMIZE / "base") if item["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


HELM = """#!{python}
# The two commands of helm that kustomize calls, with Helm's own engine.
import sys
sys.path.insert(0, {here!r})
import helm, yaml
if sys.argv[1] == "version":
    print("v4.2.3")
else:
    options = dict(zip(sys.argv[1:], sys.argv[2:]))
    values = yaml.safe_load(open(options["-f"] if "-f" in options else options["--values"]))
    chart = next(argument for argument in sys.argv[2:] if argument.startswith("/"))
    print(helm.manifest(values, chart=chart, name=sys.argv[2], namespace=options["--namespace"]))
"""


def test_chart_inflation_builds(tmp_path):
    """`kubectl kustomize --enable-helm`, as deployments write it; kubectl calls a program named helm."""
    program = tmp_path / "helm"
    program.write_text(HELM.format(python=sys.executable, here=str(ROOT / "Tests/deploy")))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    copy = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy", copy)
    items = build(copy / "kustomize/helm", "--enable-helm", "--load-restrictor=LoadRestrictionsNone", PATH=f"{tmp_path}:{os.environ['PATH']}")
    values = yaml.load((KUSTOMIZE / "helm/kustomization.yaml").read_text(), helm.Loader)["helmCharts"][0]["valuesInline"]
    assert ordered(items) == ordered(helm.objects(values, chart=helm.CHART))
