"""`remove-taint` against an API server that checks what it is asked, as Kubernetes does."""

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

NODE = "node-1"
KEY = "spegel.dev/not-ready"


class FakeAPI(BaseHTTPRequestHandler):
    """Nodes of a Kubernetes API: reads, and JSON patches that test before they remove."""

    def log_message(self, *arguments):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def authorized(self):
        self.server.seen.append((self.command, self.path))
        if self.headers["Authorization"] != "Bearer token-of-the-pod":
            self.answer(401, {})
            return False
        return True

    def do_GET(self):
        if self.authorized():
            self.answer(200, {"kind": "Node", "metadata": {"name": NODE}, "spec": {"taints": self.server.taints}})

    def do_PATCH(self):
        if not self.authorized():
            return
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json-patch+json"
        test, remove = patch
        index = int(test["path"].removeprefix("/spec/taints/"))
        assert (test["op"], remove) == ("test", {"op": "remove", "path": test["path"]})
        if self.server.conflicts > 0:
            self.server.conflicts -= 1
            self.answer(409, {})
        elif self.server.taints[index] != test["value"]:
            self.answer(422, {})
        else:
            del self.server.taints[index]
            self.answer(200, {})


class Readiness(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.asked.release()
        self.send_response(200 if self.server.ready and self.path == "/readyz" else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(handler, **state):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for name, value in state.items():
        setattr(server, name, value)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def account(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=api",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt"], check=True, capture_output=True)
    (tmp_path / "token").write_text("token-of-the-pod\n")
    return tmp_path


def start(program, api, probe, account):
    return subprocess.Popen(
        [program, "remove-taint", f"--node-name={NODE}", f"--taint-key={KEY}", f"--probe-endpoint=127.0.0.1:{probe.server_port}",
         "--interval=50ms", f"--service-account-path={account}"],
        env={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.server_port), "PATH": "/usr/bin"},
        stderr=subprocess.PIPE, text=True)


def test_taint_is_removed_once_the_mirror_is_ready(program, account):
    other = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    taints = [
        {"key": KEY, "effect": "NoSchedule"}, other,
        {"key": KEY, "effect": "NoExecute", "value": "x", "timeAdded": "2025-01-01T00:00:00Z"},
    ]
    api = serve(FakeAPI, taints=taints, seen=[], conflicts=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "key")
    api.socket = context.wrap_socket(api.socket, server_side=True)
    probe = serve(Readiness, ready=False, asked=threading.Semaphore(0))
    process = start(program, api, probe, account)
    try:
        for _ in range(3):
            assert probe.asked.acquire(timeout=60)
        assert not api.seen, "the API was asked although the mirror is not ready"
        probe.ready = True
        removed = [line for line in (process.stderr.readline() for _ in range(3)) if "taint removed" in line]
        assert len(removed) == 2 and api.taints == [other]
        asked = len(api.seen)
        # Long enough for several further attempts, of which there are to be none.
        assert not probe.asked.acquire(timeout=1) or len(api.seen) == asked
        assert process.poll() is None, "a container that ends is started again"
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_untrusted_api_gets_no_token(program, account, tmp_path_factory):
    api = serve(FakeAPI, taints=[], seen=[], conflicts=0)
    other = tmp_path_factory.mktemp("other")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=api",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", other / "key", "-out", other / "crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other / "crt", other / "key")
    api.socket = context.wrap_socket(api.socket, server_side=True)
    probe = serve(Readiness, ready=True, asked=threading.Semaphore(0))
    process = start(program, api, probe, account)
    try:
        assert "cannot remove the taint" in process.stderr.readline()
        assert not api.seen
    finally:
        process.kill()
