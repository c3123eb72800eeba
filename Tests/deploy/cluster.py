"""Nodes of a cluster in network namespaces: containerd, a cluster's DNS, node ports, and pods of rendered objects."""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import helm

HERE = Path(__file__).parent
GATEWAY = "10.244.0.1"
# Nothing here is to hang; on a busy machine a start may take long.
PATIENCE = 120
PR_SET_PDEATHSIG = 1


def end_with_parent():
    """For children: to be killed with the tests, whatever ends those."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(*command, **options):
    done = subprocess.run([str(item) for item in command], capture_output=True, text=True, timeout=PATIENCE, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
    return done.stdout


def eventually(what, body):
    """The first answer of `body` that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = body()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)


def get(url):
    """Status and body of an answer; (0, reason) when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


class NameServer:
    """A DNS server for the names of Services: A records, nothing else."""

    def __init__(self, address):
        self.records = {}
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.socket.settimeout(0.1)
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.closing.set()
        self.thread.join()
        self.socket.close()

    def serve(self):
        while not self.closing.is_set():
            try:
                query, client = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            labels, position = [], 12
            while query[position]:
                labels.append(query[position + 1 : position + 1 + query[position]].decode())
                position += query[position] + 1
            question = query[12 : position + 5]
            (kind,) = struct.unpack(">H", query[position + 1 : position + 3])
            name = ".".join(labels).lower()
            self.asked.append(name)
            addresses = self.records.get(name)
            answers = addresses if addresses and kind == 1 else []
            code = 0 if addresses is not None else 3
            header = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(answers), 0, 0)
            body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(item) for item in answers)
            self.socket.sendto(header + question + body, client)


class Cluster:
    """A bridge with nodes on it, in the network namespace of the tests."""

    def __init__(self, directory, image):
        self.directory = directory
        self.image = image
        self.nodes = []
        self.children = []
        run("ip", "link", "add", "nodes", "type", "bridge")
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", "nodes")
        run("ip", "link", "set", "nodes", "up")
        self.names = NameServer(GATEWAY)

    def add_node(self):
        node = Node(self, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    def start(self, log, *command, **options):
        """Starts a program that ends with the cluster."""
        with open(log, "ab") as output:
            child = subprocess.Popen(
                [str(item) for item in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=end_with_parent, **options)
        self.children.append(child)
        return child

    def close(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.kill()
            child.wait()
        self.names.close()
        subprocess.run(["ip", "link", "delete", "nodes"])


class HostImage:
    """This machine's libraries with the program as entry point: what a debug build needs."""

    environment = {"PATH": "/usr/bin", "SWIFT_BACKTRACE": "enable=no"}
    directory = None

    def __init__(self, program):
        libraries = re.findall(r"(/\S+)/\S+ \(0x", run("ldd", program))
        tops = {"/usr", "/lib", "/lib64"} | {path for path in libraries if not path.startswith(("/usr", "/lib"))}
        self.mounts = [(path, path, True) for path in sorted(tops) if os.path.exists(path)]
        self.mounts += [(str(program), "/spegel", True), ("/etc/ssl", "/etc/ssl", True)]
        self.entrypoint = ["/spegel"]


class LayoutImage:
    """The image of an OCI layout with one manifest, unpacked."""

    mounts = ()

    def __init__(self, layout, directory):
        self.layout = layout
        self.directory = directory
        self.manifest = self.blob(json.loads((layout / "index.json").read_text())["manifests"][0])
        self.config = self.blob(self.manifest["config"])
        for layer in self.manifest["layers"]:
            with tarfile.open(self.path(layer)) as archive:
                archive.extractall(directory)
        self.entrypoint = self.config["config"]["Entrypoint"]
        self.environment = dict(text.split("=", 1) for text in self.config["config"]["Env"])

    def path(self, descriptor):
        return self.layout / "blobs" / descriptor["digest"].replace(":", "/")

    def blob(self, descriptor):
        return json.loads(self.path(descriptor).read_text())


class Node:
    """A node: a network namespace with an address, a directory that stands for its root, and containerd."""

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.name = f"node-{number}"
        self.address = f"10.244.0.{10 + number}"
        self.root = cluster.directory / self.name
        (self.root / "tmp").mkdir(parents=True)
        self.holder = cluster.start(os.devnull, "unshare", "--net", "sleep", "infinity")
        eventually("the node's namespace", lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        run("ip", "link", "add", f"veth{number}", "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        run("ip", "link", "set", f"veth{number}", "master", "nodes", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.containerd = None

    def path(self, path):
        """Where a path of the node is on this machine."""
        return self.root / path.lstrip("/")

    def inside(self, *command):
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *command]

    def run(self, *command):
        return run(*self.inside(*command))

    def start_containerd(self):
        (self.path("/run/containerd")).mkdir(parents=True, exist_ok=True)
        configuration = self.path("/tmp/containerd.toml")
        configuration.write_text(
            f'version = 2\nroot = "{self.path("/var/lib/containerd")}"\nstate = "{self.path("/run/containerd")}"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.path("/run/containerd/containerd.sock")}"\n')
        self.containerd = self.cluster.start(
            self.path("/tmp/containerd.log"), *self.inside("containerd", "--config", configuration))

        def answers():
            assert self.containerd.poll() is None, self.path("/tmp/containerd.log").read_text()[-2000:]
            return subprocess.run([str(item) for item in self.ctr("version")], capture_output=True, timeout=PATIENCE).returncode == 0

        eventually("containerd answers", answers)

    def stop_containerd(self):
        self.containerd.terminate()
        assert self.containerd.wait(PATIENCE) == 0

    def ctr(self, *arguments):
        return self.inside("ctr", "--address", self.path("/run/containerd/containerd.sock"), "--namespace", "k8s.io", *arguments)

    def pull(self, reference):
        """Fetches an image as containerd's CRI does, with the registry configuration of the node."""
        return run(*self.ctr("content", "fetch", "--hosts-dir", self.path("/etc/containerd/certs.d"), reference))

    def forward(self, port, target):
        """What kube-proxy does for a node port, or the CNI for a host port, whose pod is on this node."""
        return self.cluster.start(self.path("/tmp/forward.log"), *self.inside(sys.executable, HERE / "forward.py", port, target))

    def pod(self, items, name, container, **options):
        """A container of the pod of an object, ready to be started."""
        found = [item for item in items if item["kind"] in ("DaemonSet", "Pod") and item["metadata"]["name"] == name]
        assert len(found) == 1, name
        spec = found[0]["spec"]["template"]["spec"] if found[0]["kind"] == "DaemonSet" else found[0]["spec"]
        (wanted,) = [item for item in spec.get("initContainers", []) + spec["containers"] if item["name"] == container]
        return Container(self, spec, wanted, **options)


class Container:
    """A container of a rendered pod on a node, with exactly its arguments, environment and mounts."""

    def __init__(self, node, pod, spec, secrets=None, image=None):
        self.node = node
        self.spec = spec
        self.name = spec["name"]
        self.log = node.path(f"/tmp/{self.name}.log")
        image = image or node.cluster.image
        environment = {**image.environment}
        for variable in spec.get("env", []):
            environment[variable["name"]] = variable["value"] if "value" in variable else self.field(variable["valueFrom"])
        arguments = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], text) for text in spec["args"]]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = [*image.mounts]
        for mount in spec.get("volumeMounts", []):
            mounts.append((str(self.source(volumes[mount["name"]], secrets or {})), mount["mountPath"], mount.get("readOnly", False)))
        context = spec.get("securityContext", {})
        root = node.path(f"/tmp/root-{self.name}")
        root.mkdir(exist_ok=True)
        self.file = node.path(f"/tmp/{self.name}.json")
        self.file.write_text(json.dumps({
            "root": str(root), "image": image.directory and str(image.directory), "mounts": mounts, "command": [*image.entrypoint, *arguments], "environment": environment,
            "files": {"/etc/resolv.conf": f"nameserver {GATEWAY}\noptions timeout:2 attempts:5\n"},
            "read_only_root": context.get("readOnlyRootFilesystem", False),
            "drop_all": "ALL" in context.get("capabilities", {}).get("drop", []),
            "no_new_privileges": context.get("allowPrivilegeEscalation", True) is False,
        }))
        self.child = None

    def field(self, source):
        return {"status.hostIP": self.node.address, "spec.nodeName": self.node.name}[source["fieldRef"]["fieldPath"]]

    def source(self, volume, secrets):
        if "secret" in volume:
            directory = self.node.path(f"/tmp/secret-{volume['name']}")
            directory.mkdir(exist_ok=True)
            for key, value in secrets[volume["secret"]["secretName"]].items():
                (directory / key).write_text(value)
            return directory
        path = self.node.path(volume["hostPath"]["path"])
        match volume["hostPath"]["type"]:
            case "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            case "Directory":
                assert path.is_dir(), path
            case "Socket":
                assert path.is_socket(), path
        return path

    def start(self):
        self.child = self.node.cluster.start(self.log, *self.node.inside(
            "unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, HERE / "container.py", self.file))
        return self

    def finish(self):
        """Runs it to its end, which has to be a success."""
        self.start()
        status = self.child.wait(PATIENCE)
        assert status == 0, f"{self.name}: status {status}\n{self.output()}"

    @property
    def process(self):
        """The process ID of the container's first process."""
        (pid,) = [int(text) for text in Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()]
        return pid

    def status(self):
        """What the kernel says about the container's first process."""
        lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self):
        """Ends it as a kubelet does, and gives its exit status."""
        os.kill(self.process, signal.SIGTERM)
        return self.child.wait(PATIENCE)

    def output(self):
        return self.log.read_text()[-8000:]

    def probe_url(self, kind):
        probe = self.spec[kind]["httpGet"]
        (port,) = [port["containerPort"] for port in self.spec["ports"] if port["name"] == probe["port"]]
        return f"http://{self.node.address}:{port}{probe['path']}"

    def until_ready(self, kind="readinessProbe"):
        def passes():
            assert self.child.poll() is None, f"{self.name} has ended\n{self.output()}"
            return get(self.probe_url(kind))[0] == 200

        try:
            eventually(f"{self.name} on {self.node.name} is ready", passes)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None


def tree(directory):
    """Every entry below a directory with kind, mode and content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        state = path.lstat()
        name = str(path.relative_to(directory))
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[name] = (oct(state.st_mode), state.st_uid, state.st_gid, content)
    return found
