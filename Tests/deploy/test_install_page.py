"""docs/install-systemd.md, step by step on two hosts, from the tarball to the state before.

Once on hosts made of this machine's /usr, with a stand-in for systemd; and, with SPEGEL_TEST_DEBIAN_ROOT (a root of debootstrap), on hosts that
really boot, with the units in their sandboxes."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster import HERE, PATIENCE, Cluster, HostImage, eventually, run, tree
from helm import ROOT

REFERENCE = "docker.io/library/nginx:1.27"


def blocks():
    """The commands of each numbered section, without comments."""
    text = (ROOT / "docs/install-systemd.md").read_text()
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        match = re.match(r"(\d)\. ", section)
        if match:
            found[int(match[1])] = [block.strip().splitlines() for block in re.findall(r"^```\n(.*?)^```", section, re.M | re.S)]
    return found


class Host:
    """A Debian host without spegel: its root and its network."""

    MAKER = "host.py"
    NAMESPACES = ("--mount", "--pid")

    def __init__(self, cluster, *arguments):
        self.node = cluster.add_node()
        root = self.node.path("/tmp/host")
        root.mkdir()
        self.child = cluster.start(self.node.path("/tmp/host.log"), *self.node.inside(
            "unshare", *self.NAMESPACES, "--fork", "--kill-child", sys.executable, HERE / self.MAKER, *arguments, root))
        eventually("the host is made", self.is_made)

    def is_made(self):
        assert self.child.poll() is None, self.node.path("/tmp/host.log").read_text()
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        if not children:
            return False
        self.pid = children[0]
        return self.is_up()

    def is_up(self):
        return self.path("/run/host-is-made").exists()

    def install_packages(self, line):
        """They are there: this machine's /usr is the host's."""

    def start_containerd(self):
        """As the host's systemd would have."""
        self.run("(containerd >/var/log/containerd.log 2>&1 &)")

    def path(self, path):
        return Path(f"/proc/{self.pid}/root{path}")

    def command(self, line):
        # --mount-proc of the holder shows this PID namespace; PATH is a login shell's.
        return ["nsenter", "--target", self.pid, "--mount", "--pid", "--net", "--root", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", f"cd /root\n{line}"]

    def run(self, line):
        return run(*self.command(line))

    def succeeds(self, line):
        return subprocess.run(self.command(line), capture_output=True, timeout=PATIENCE).returncode == 0


class DebianHost(Host):
    """A host that has booted a root of debootstrap, with systemd."""

    MAKER = "debian.py"
    NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")

    def is_up(self):
        # "degraded" is up as well: some unit of Debian's own does not suit a namespace.
        answer = subprocess.run(self.command("systemctl is-system-running"), capture_output=True, text=True, timeout=PATIENCE)
        return answer.stdout.strip() in ("running", "degraded")

    def install_packages(self, line):
        self.run(line)

    def start_containerd(self):
        assert self.run("systemctl is-active containerd.service").strip() == "active"


def debian_root():
    root = os.environ.get("SPEGEL_TEST_DEBIAN_ROOT")
    if not root:
        pytest.skip("SPEGEL_TEST_DEBIAN_ROOT names no root: see `make host-test`")
    return root


@pytest.fixture(params=["stand-in", "systemd"])
def hosts(request, program):
    arguments = (DebianHost, debian_root()) if request.param == "systemd" else (Host,)
    with tempfile.TemporaryDirectory(prefix="spegel-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory), HostImage(program))
        kind, *rest = arguments
        yield [kind(cluster, *rest) for _ in range(2)]
        cluster.close()


def test_the_page_leads_to_a_mirror_and_back(hosts, program, image, tmp_path):
    steps = blocks()
    assert sorted(steps) == [1, 2, 3, 4, 5]
    stripped = tmp_path / "spegel"
    run("strip", "-o", stripped, program)
    run(ROOT / "scripts/dist", "--program", stripped, "--output", tmp_path / "dist")
    archive = tmp_path / "host.tar"
    run("skopeo", "copy", "--all", f"oci:{image}:docker.io/library/demo:1.0", f"oci-archive:{archive}:{REFERENCE}")
    former = []
    for host in hosts:
        for path in [*(tmp_path / "dist").iterdir(), archive]:
            shutil.copy(path, host.path("/root"))
        host.run("mkdir -p /etc/containerd/certs.d/registry.example.com && echo 'server = \"https://registry.example.com\"' > /etc/containerd/certs.d/registry.example.com/hosts.toml")
        host.start_containerd()
        eventually("containerd answers", lambda: host.succeeds("ctr version"))
        former.append((tree(host.path("/etc/containerd")), set(files(host.path("/usr")))))

    identities = []
    for host in hosts:
        (block,) = steps[1]
        assert block[0].startswith("apt-get install")
        host.install_packages(block[0])
        for line in block[1:]:
            output = host.run(line)
        assert output.startswith("spegel ")
        for line in steps[2][0]:
            output = host.run(line)
        identities.append(output.strip())
    for host, other, identity in zip(hosts, reversed(hosts), reversed(identities)):
        line = next(line for line in steps[2][1] if line.startswith("STATIC_BOOTSTRAP_PEERS="))
        line = re.sub(r"/ip4/[0-9.]+", f"/ip4/{other.node.address}", line)
        line = re.sub(r"/p2p/\S+", f"/p2p/{identity}", line)
        file = host.path("/etc/spegel/spegel.env")
        text = re.sub(r"^#?(BOOTSTRAP_KIND|STATIC_BOOTSTRAP_PEERS)=.*\n", "", file.read_text(), flags=re.M)
        file.write_text(f"{text}BOOTSTRAP_KIND=static\n{line}\n")
    for host in hosts:
        for line in steps[3][0][:2]:
            host.run(line)
    for host in hosts:
        eventually("the mirror is ready", lambda: host.succeeds(steps[3][0][2]))

    first, second = hosts
    # There is no way to the registry from here, so the first host gets the image otherwise.
    first.run("ctr images import --all-platforms --no-unpack host.tar")
    fetch = steps[4][0][3]
    assert fetch.startswith("ctr content fetch") and REFERENCE in fetch and fetch == steps[4][0][1]
    eventually("the second host fetches from the first", lambda: second.succeeds(fetch))
    assert re.search(r'cache="hit".* [1-9]', second.run(steps[4][0][4]))

    for host, (containerd, system) in zip(hosts, former):
        for line in steps[5][0]:
            host.run(line)
        assert tree(host.path("/etc/containerd")) == containerd
        assert set(files(host.path("/usr"))) == system, "files are left"
        assert not host.path("/etc/spegel").exists() and not host.path("/var/lib/spegel").exists()


def files(directory):
    """Paths of what the page's tarball could have left."""
    for name in ("bin", "lib/systemd/system", "share/man/man1", "share/doc", "share/bash-completion", "share/zsh", "share/fish"):
        yield from (str(path.relative_to(directory)) for path in (directory / name).rglob("*spegel*") if path.is_file())
