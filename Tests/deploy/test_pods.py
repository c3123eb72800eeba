"""The pods of the rendered chart, run as a kubelet would run them, with the real program and a real containerd."""

import os
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

import helm
from cluster import GATEWAY, Cluster, HostImage, LayoutImage, eventually, get, run, tree

UPSTREAM = f"{GATEWAY}:5500"
SETS = {item.name: item for item in helm.value_sets()}


@pytest.fixture(scope="session")
def container_image(request, tmp_path_factory):
    """The image of the layout SPEGEL_TEST_IMAGE; without it, the program with this machine's libraries."""
    layout = os.environ.get("SPEGEL_TEST_IMAGE")
    if layout:
        return LayoutImage(Path(layout), tmp_path_factory.mktemp("image"))
    return HostImage(request.getfixturevalue("program"))


@pytest.fixture
def cluster(container_image):
    # A socket's path has 107 bytes at most, and pytest's own directories are deep.
    with tempfile.TemporaryDirectory(prefix="spegel-", ignore_cleanup_errors=True) as directory:
        made = Cluster(Path(directory), container_image)
        yield made
        made.close()


def install(cluster, items, *, release="spegel", secrets=None, node_port=(30020, 5000)):
    """Runs the init container and the daemon on every node, with the Services' names and the node port."""
    cluster.names.records[f"{release}-bootstrap.spegel.svc.cluster.local"] = [node.address for node in cluster.nodes]
    daemons = []
    for node in cluster.nodes:
        node.pod(items, release, "configuration", secrets=secrets).finish()
        daemons.append(node.pod(items, release, "registry", secrets=secrets).start())
        node.forward(*node_port)
    for daemon in daemons:
        daemon.until_ready("startupProbe")
        daemon.until_ready("readinessProbe")
    return daemons


# Sets whose daemon differs in arguments, environment or mounts.
STARTED = [
    "default", "flags", "talos", "k0s", "k3s", "no-content-path", "no-persistence", "basic-auth", "registries", "no-latest", "saturn",
    "socket-mount", "names", "long-name",
]


@pytest.mark.parametrize("name", STARTED)
def test_daemon_becomes_ready_with_exactly_what_the_chart_says(cluster, name):
    chosen = SETS[name]
    items = chosen.objects()
    values = chosen.values.get("spegel", {})
    node = cluster.add_node()
    node.start_containerd()
    # The node has containerd where the values say.
    for value, default in (
        ("containerdSock", "/run/containerd/containerd.sock"),
        ("containerdContentPath", "/var/lib/containerd/io.containerd.content.v1.content"),
    ):
        wanted = node.path(values.get(value) or default)
        if not wanted.exists():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            (wanted.parent.rmdir if value == "containerdSock" else lambda: None)()
            target = node.path(default) if value == "containerdContentPath" else node.path(default).parent
            (wanted if value == "containerdContentPath" else wanted.parent).symlink_to(target)
    (daemonset,) = [item for item in items if item["kind"] == "DaemonSet" and item["metadata"]["labels"]["app.kubernetes.io/component"] == "spegel"]
    domain = next(text for text in daemonset["spec"]["template"]["spec"]["containers"][0]["args"] if text.startswith("--dns-bootstrap-domain="))
    cluster.names.records[domain.partition("=")[2].rstrip(".")] = [node.address]
    secrets = {"spegel-credentials": {"username": "user", "password": "secret"}}
    daemon = node.pod(items, daemonset["metadata"]["name"], "registry", secrets=secrets).start()
    daemon.until_ready("startupProbe")
    daemon.until_ready("readinessProbe")
    assert domain.partition("=")[2].rstrip(".") in cluster.names.asked
    status = daemon.status()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1", "it runs with more than the chart says"
    ports = {port["name"]: port["containerPort"] for port in daemon.spec["ports"]}
    assert get(f"http://{node.address}:{ports['metrics']}/metrics")[0] == 200
    registry = f"http://{node.address}:{ports['registry']}/v2/"
    assert get(registry)[0] == (401 if name == "basic-auth" else 200)
    if values.get("persistence", {}).get("enabled", True):
        path = values.get("persistence", {}).get("hostPath", "/var/lib/spegel")
        assert node.path(path).joinpath("private.key").exists()
    assert daemon.stop() == 0, daemon.output()


@pytest.fixture
def upstream(cluster, image, tmp_path):
    """A registry with the image, on the cluster's network."""
    configuration = tmp_path / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\nhttp: {{addr: '{UPSTREAM}'}}\nlog: {{level: warn}}\n")
    process = cluster.start(tmp_path / "registry.log", "docker-registry", "serve", configuration)
    eventually("the registry answers", lambda: get(f"http://{UPSTREAM}/v2/")[0] == 200)
    run("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{image}:docker.io/library/demo:1.0", f"docker://{UPSTREAM}/library/demo:1.0")
    return process


VALUES = {"image": helm.IMAGE, "spegel": {"mirroredRegistries": [f"http://{UPSTREAM}"]}}


def metric(node, text):
    """The value of a series, by the beginning of its line."""
    status, body = get(f"http://{node.address}:9090/metrics")
    assert status == 200
    return sum(float(line.rsplit(" ", 1)[1]) for line in body.decode().splitlines() if line.startswith(text))


def before(node):
    """What an operator has in the registry configuration before the mirror comes."""
    directory = node.path("/etc/containerd/certs.d")
    for name, text in {
        f"{UPSTREAM}/hosts.toml": f'# ours\nserver = "http://{UPSTREAM}"\n\n[host."http://{UPSTREAM}"]\n  capabilities = ["pull", "resolve"]\n',
        f"{UPSTREAM}/ca.crt": "a certificate\n",
        "registry.example.com/hosts.toml": 'server = "https://registry.example.com"\n',
        "README": "kept by the platform team\n",
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (directory / UPSTREAM / "ca.crt").chmod(0o640)
    (directory / "link.example.com").symlink_to("registry.example.com")
    return tree(directory)


def test_install_pull_through_the_mirror_and_uninstall(cluster, upstream):
    """From the installation to the cleanup hook: containerd pulls through the mirror, and the nodes get back what they had."""
    items = helm.objects(VALUES)
    nodes = [cluster.add_node() for _ in range(2)]
    former = []
    for node in nodes:
        node.start_containerd()
        former.append(before(node))
    daemons = install(cluster, items)
    assert all(tree(node.path("/etc/containerd/certs.d")) != state for node, state in zip(nodes, former))

    first, second = nodes
    reference = f"{UPSTREAM}/library/demo:1.0"
    first.pull(reference)
    assert metric(first, 'spegel_mirror_requests_total{') > 0, "containerd did not ask the mirror"
    upstream.kill()
    upstream.wait()

    def fetched():
        return subprocess.run(
            [str(item) for item in second.ctr("content", "fetch", "--hosts-dir", second.path("/etc/containerd/certs.d"), reference)],
            capture_output=True, text=True, timeout=120).returncode == 0

    eventually("the second node pulls from the first, with the upstream gone", fetched)
    for daemon in daemons:
        assert daemon.stop() == 0, daemon.output()

    # The hook: its DaemonSet on every node, then the pod that waits for all of them.
    cluster.names.records["spegel-cleanup.spegel.svc.cluster.local"] = [node.address for node in nodes]
    cleanups = [node.pod(items, "spegel-cleanup", "cleanup").start() for node in nodes]
    for cleanup in cleanups:
        cleanup.until_ready()
    first.pod(items, "spegel-cleanup-wait", "cleanup-wait").finish()
    for cleanup in cleanups:
        assert cleanup.stop() == 0, cleanup.output()
    for node, state in zip(nodes, former):
        assert tree(node.path("/etc/containerd/certs.d")) == state


def test_waiting_for_the_cleanup_ends_only_when_every_node_is_clean(cluster):
    items = helm.objects(VALUES)
    first, second = [cluster.add_node() for _ in range(2)]
    before(first)
    cluster.names.records["spegel-cleanup.spegel.svc.cluster.local"] = [first.address, second.address]
    first.pod(items, "spegel-cleanup", "cleanup").start().until_ready()
    waiting = first.pod(items, "spegel-cleanup-wait", "cleanup-wait").start()
    eventually("it has asked several times", lambda: cluster.names.asked.count("spegel-cleanup.spegel.svc.cluster.local") >= 4)
    assert waiting.child.poll() is None
    second.pod(items, "spegel-cleanup", "cleanup").start().until_ready()
    assert waiting.child.wait(120) == 0, waiting.output()


def test_daemon_outlives_a_restart_of_containerd(cluster, image):
    """The pod mounts the socket's directory, so the socket that a restarted containerd makes is there."""
    node = cluster.add_node()
    node.start_containerd()
    items = helm.objects({"image": helm.IMAGE, "spegel": {"containerdMirrorAdd": False}})
    cluster.names.records["spegel-bootstrap.spegel.svc.cluster.local"] = [node.address]
    daemon = node.pod(items, "spegel", "registry").start()
    daemon.until_ready()
    node.stop_containerd()
    node.start_containerd()
    archive = node.path("/tmp/image.tar")
    run("skopeo", "copy", "--all", f"oci:{image}:docker.io/library/demo:1.0", f"oci-archive:{archive}:docker.io/library/demo:1.0")
    run(*node.ctr("images", "import", "--all-platforms", "--no-unpack", archive))
    url = f"http://{node.address}:5000/v2/library/demo/manifests/1.0?ns=docker.io"
    eventually("an image that was imported after the restart is served", lambda: get(url)[0] == 200)
    assert daemon.child.poll() is None


CONTAINERD_CONFIGURATION = """# The platform team's file.
version = 2

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"   # kept as it is
  discard_unpacked_layers = true
"""


def test_preparation_sets_what_the_mirror_needs(cluster):
    """The second DaemonSet's container, in the form that restarts nothing and so has no privileges."""
    items = SETS["prep-no-restart"].objects()
    node = cluster.add_node()
    node.start_containerd()
    file = node.path("/etc/containerd/config.toml")
    file.parent.mkdir(parents=True)
    file.write_text(CONTAINERD_CONFIGURATION)
    prep = node.pod(items, "spegel-containerd-prep", "containerd-prep").start()
    text = eventually("the file is changed", lambda: file.read_text() if file.read_text() != CONTAINERD_CONFIGURATION else None)
    settings = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]
    assert settings["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert settings["containerd"] == {"snapshotter": "overlayfs", "discard_unpacked_layers": False}
    assert text.startswith("# The platform team's file.\n") and "# kept as it is" in text
    assert file.with_name("config.toml.spegel-backup").read_text() == CONTAINERD_CONFIGURATION
    assert prep.child.poll() is None, "it is to stay and look again"
    assert prep.stop() == 0, prep.output()
