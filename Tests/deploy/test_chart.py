"""The chart: objects, goldens, the schema, contradictions, the same options as Spegel's chart."""

import json
import re
import subprocess
import sys

import helm_python
import kubernetes_validate
import pytest
import yaml

import generate
import helm
from flags import flags, pod_specs
from helm import CHART, ROOT

SETS = helm.value_sets()
# Kinds of operators, whose definitions are not part of Kubernetes.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "GrafanaDashboard", "VerticalPodAutoscaler"}

every_set = pytest.mark.parametrize("chosen", SETS, ids=lambda item: item.name)


def test_there_are_enough_sets():
    assert len(SETS) >= 25


@every_set
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_objects_are_valid(chosen, version):
    items = chosen.objects(kube_version=f"v{version}.0")
    seen = set()
    for item in items:
        identity = (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        assert identity not in seen, f"{identity} is there twice"
        seen.add(identity)
        # Names of Services are the shortest that Kubernetes allows.
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", item["metadata"]["name"])
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, version, strict=True)


@every_set
def test_pods_fit_together(chosen):
    """Mounts have volumes, probes and Services have ports, selectors select, names resolve: no schema says so."""
    items = chosen.objects()
    pods = [item["spec"]["template"] if item["kind"] == "DaemonSet" else item for item in items if item["kind"] in ("DaemonSet", "Pod")]
    for item in items:
        if item["kind"] == "DaemonSet":
            selector = item["spec"]["selector"]["matchLabels"]
            assert selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()
        if item["kind"] == "Service":
            selected = [pod for pod in pods if item["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
            assert len(selected) == 1, item["metadata"]["name"]
            ports = {port["name"]: port for container in selected[0]["spec"]["containers"] for port in container.get("ports", [])}
            for port in item["spec"].get("ports", []):
                target = port.get("targetPort", port["port"])
                assert target in ports or target in {port["containerPort"] for port in ports.values()}
    for spec in pod_specs(items):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        assert len(volumes) == len(spec.get("volumes", []))
        mounted = set()
        for container in spec.get("initContainers", []) + spec["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports
            names = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert names <= volumes
            mounted |= names
            # References to the environment that nothing defines would be passed on literally.
            defined = {variable["name"] for variable in container.get("env", [])}
            assert set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", [])))) <= defined
        assert mounted == volumes, "a volume that nothing mounts"
    found = flags(items)
    services = {item["metadata"]["name"] for item in items if item["kind"] == "Service"}
    namespace = items[0]["metadata"]["namespace"]
    assert found["registry"]["dns-bootstrap-domain"].split(".")[0] in services
    assert found["registry"]["dns-bootstrap-domain"].split(".")[1] == namespace
    if "cleanup-wait" in found:
        host, _, port = found["cleanup-wait"]["probe-endpoint"].rpartition(":")
        assert host.split(".")[0] in services and f":{port}" == found["cleanup"]["addr"]


@every_set
def test_containers_are_confined(chosen):
    """No container of ours keeps a capability, can gain privileges or write to its root; but the one that restarts containerd."""
    for spec in pod_specs(chosen.objects()):
        for container in spec.get("initContainers", []) + spec["containers"]:
            if container["name"] == "prepare":
                continue
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            if context.get("privileged"):
                assert container["name"] == "containerd-prep" and spec["hostPID"]
            else:
                assert context["capabilities"] == {"drop": ["ALL"]} and context["allowPrivilegeEscalation"] is False
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.get("hostNetwork")


def options_of(binary):
    """The long options of each subcommand, as the program describes itself."""
    dump = json.loads(subprocess.run([binary, "--experimental-dump-help"], capture_output=True, check=True).stdout)
    return {
        command["commandName"]: {
            name["name"] for argument in command.get("arguments", []) for name in argument.get("names", []) if name["kind"] == "long"
        }
        for command in dump["command"]["subcommands"]
    }


@every_set
def test_program_knows_every_option(chosen, program):
    known = options_of(program)
    for spec in pod_specs(chosen.objects()):
        for container in spec.get("initContainers", []) + spec["containers"]:
            if container["name"] == "prepare":
                continue
            command, *arguments = container["args"]
            given = {argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--")}
            assert given <= known[command], f"{command} does not know {given - known[command]}"


TABLE = yaml.load((ROOT / "Tests/deploy/original-flags.yaml").read_text(), helm.Loader)
COMPARED = [item for item in SETS if item.name in TABLE or item.name in TABLE["same-as-default"]]
# Options of ours beyond the table, and the one value that its present chart ignores although its pages have it.
MORE = {"cleanup": {"log-level": "INFO"}, "cleanup-wait": {"log-level": "INFO"}}
HOST_PORT = {"vke": {"mirror-targets": ["http://$(NODE_IP):3020"]}}


@pytest.mark.parametrize("chosen", COMPARED, ids=lambda item: item.name)
def test_options_are_those_of_the_original(chosen):
    wanted = TABLE.get(chosen.name, TABLE["default"])
    found = flags(chosen.objects())
    level = chosen.values.get("spegel", {}).get("logLevel", "INFO")
    for command in MORE.keys() & wanted.keys():
        wanted = {**wanted, command: {**wanted[command], "log-level": level}}
    if chosen.name in HOST_PORT:
        wanted = {**wanted, "configuration": {**wanted["configuration"], **HOST_PORT[chosen.name]}}
    assert found == wanted


def test_every_set_of_the_table_is_compared():
    assert {item.name for item in COMPARED} == (TABLE.keys() - {"same-as-default"}) | set(TABLE["same-as-default"])


def test_registries_at_the_top_level_are_the_same():
    inner = {"spegel": {"mirroredRegistries": ["https://docker.io"], "mirrorResolveRetries": 7, "mirrorResolveTimeout": "1s"}}
    outer = {"mirroredRegistries": ["docker.io"], "mirrorResolveRetries": 7, "mirrorResolveTimeout": "1s"}
    image = {"image": helm.IMAGE}
    assert helm.objects({**inner, **image}) == helm.objects({**outer, **image})


def test_derived_files_are_up_to_date():
    stale = [str(path.relative_to(ROOT)) for path, text in [*generate.copies(), *generate.derived()] if not path.exists() or path.read_text() != text]
    assert not stale, "run scripts/chart generate and look at what it changes"
    assert {path for path, _ in generate.goldens()} == set(generate.GOLDEN.iterdir())


def test_schema_has_every_value():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.load((CHART / "values.yaml").read_text(), helm.Loader)

    def compare(part, value, path):
        if "properties" in part:
            assert part["properties"].keys() == value.keys(), path
            for key in value:
                compare(part["properties"][key], value[key], f"{path}.{key}")
        assert part is schema or part["description"].endswith((".", "`")), path

    compare(schema, values, "values")


def wrong_values():
    """A value of a wrong type for every leaf, an unknown one for every enumeration, one outside of every range or pattern."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.load((CHART / "values.yaml").read_text(), helm.Loader)
    other = {"string": 5, "integer": "five", "boolean": "yes", "array": "text", "object": "text"}
    for name, part, _ in generate.leaves(schema, values):
        kind = part["type"][0] if isinstance(part["type"], list) else part["type"]
        yield name, other[kind]
        if "enum" in part:
            yield name, "Unknown"
        if "pattern" in part:
            yield name, " bad value "
        if "minimum" in part:
            yield name, part["minimum"] - 1
        if "maximum" in part:
            yield name, part["maximum"] + 1
        if kind == "array":
            yield name, [7]
            if part["items"].get("pattern") or part["items"].get("enum"):
                yield name, ["no such thing"]
        if kind == "object" and "additionalProperties" in part:
            yield name, {"key": 7}


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def refusal(values):
    with pytest.raises(helm_python.HelmError) as caught:
        helm.templates(values)
    return str(caught.value)


@pytest.mark.parametrize("path, value", list(wrong_values()), ids=lambda item: str(item))
def test_wrong_value_is_refused_by_name(path, value):
    assert "/" + path.replace(".", "/") in refusal(nested(path, value))


CONTRADICTIONS = [
    ({"containerdPrep": {"enabled": True, "hostPID": False}}, ["containerdPrep.restart", "containerdPrep.hostPID"]),
    ({"containerdPrep": {"enabled": True, "restart": "command"}}, ["containerdPrep.restartCommand"]),
    ({"containerdPrep": {"enabled": True, "restartCommand": "true"}}, ["containerdPrep.restartCommand", "systemd"]),
    ({"serviceMonitor": {"enabled": True, "labels": {"release": "not a label"}}}, ["serviceMonitor.labels.release", "not a label"]),
    ({"serviceMonitor": {"enabled": True, "labels": {"not a key": "x"}}}, ["serviceMonitor.labels", "not a key"]),
    ({"prometheusRule": {"labels": {"release": "-"}}}, ["prometheusRule.labels.release"]),
    ({"commonLabels": {"app.kubernetes.io/name": "other"}}, ["commonLabels", "app.kubernetes.io/name"]),
    ({"serviceMonitor": {"enabled": True, "interval": "10s"}}, ["serviceMonitor.scrapeTimeout 30s", "serviceMonitor.interval 10s"]),
    ({"service": {"metrics": {"port": 5000}}}, ["service.registry.port", "service.metrics.port", "5000"]),
    ({"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}}, ["service.ipFamilyPolicy", "service.ipFamilies"]),
    ({"grafanaDashboard": {"enabled": True, "mode": "GrafanaOperator"}}, ["grafanaDashboard.grafanaOperator.matchLabels"]),
    ({"mirroredRegistries": ["quay.io"], "spegel": {"mirroredRegistries": ["https://ghcr.io"]}}, ["quay.io", "spegel.mirroredRegistries"]),
    ({"mirrorResolveRetries": 5, "spegel": {"mirrorResolveRetries": 4}}, ["mirrorResolveRetries (5)", "spegel.mirrorResolveRetries (4)"]),
    ({"image": {"repository": ""}}, ["image.repository"]),
]


@pytest.mark.parametrize("values, words", CONTRADICTIONS, ids=[words[0] for _, words in CONTRADICTIONS])
def test_contradiction_is_refused_by_name(values, words):
    message = refusal({"image": helm.IMAGE, **values})
    assert all(word in message for word in words), message


def test_unknown_values_are_named_in_the_notes():
    notes = helm.templates({"image": helm.IMAGE, "spegel": {"mirroredRegistry": "x"}, "podAnnotations": {"free": "x"}, "global": {"a": 1}})["NOTES.txt"]
    assert "  spegel.mirroredRegistry\n" in notes and "free" not in notes and "global" not in notes
    assert "WARNING" not in helm.templates({"image": helm.IMAGE})["NOTES.txt"]


def test_lint_finds_nothing():
    report = helm_python.lint(helm.stand_in(), {"image": helm.IMAGE}, strict=True)
    assert not report["errors"] and all(message["severity"] <= 1 for message in report["messages"]), report


def test_versions_agree(program):
    described = json.loads(subprocess.run([program, "version", "--format=json"], capture_output=True, check=True).stdout)
    chart = yaml.load((CHART / "Chart.yaml").read_text(), helm.Loader)
    assert chart["appVersion"] == described["version"]


def test_monitoring_is_taken_as_it_is():
    """The dashboard and the alerts of deploy/monitoring reach the cluster unchanged, although they have braces of their own."""
    files = dict(generate.monitoring())
    names = {path.name for path in files}
    if "grafana-dashboard.json" in names:
        items = helm.objects({"image": helm.IMAGE, "grafanaDashboard": {"enabled": True}}, chart=CHART)
        (text,) = [value for path, value in files.items() if path.name == "grafana-dashboard.json"]
        assert json.loads(helm.one(items, "ConfigMap", "spegel-dashboard")["data"]["spegel.json"]) == json.loads(text)
    if "alerts.yaml" in names:
        items = helm.objects({"image": helm.IMAGE, "prometheusRule": {"enabled": True}}, chart=CHART)
        (text,) = [value for path, value in files.items() if path.name == "alerts.yaml"]
        assert helm.one(items, "PrometheusRule", "spegel")["spec"] == yaml.load(text, helm.Loader)
    if not names:
        for value in ("grafanaDashboard", "prometheusRule"):
            with pytest.raises(helm_python.HelmError, match=f"{value}.enabled: this copy of the chart has no"):
                helm.templates({"image": helm.IMAGE, value: {"enabled": True}}, chart=CHART)
