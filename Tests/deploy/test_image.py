"""scripts/image: the layout's form, its bytes, what is in it. With SPEGEL_TEST_IMAGE also the image with the real program."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from cluster import LayoutImage, eventually, get, run
from helm import ROOT

# Stands for the daemon, whose static build takes minutes: it says what scripts/image asks, and needs libz as the daemon does.
STAND_IN = r"""
#include <stdio.h>
#include <zlib.h>
int main(int count, char **arguments) {
    puts("{\"version\":\"0.1.0\",\"platform\":\"linux/amd64\",\"compiler\":\"none\",\"commit\":\"abc\"}");
    return zlibVersion()[0] == 0;
}
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    directory = tmp_path_factory.mktemp("program")
    (directory / "main.c").write_text(STAND_IN)
    run("cc", "-o", directory / "spegel", directory / "main.c", "-lz")
    return directory / "spegel"


@pytest.fixture(scope="session")
def layout(stand_in, tmp_path_factory):
    output = tmp_path_factory.mktemp("layout")
    run(ROOT / "scripts/image", "--program", stand_in, "--output", output)
    return output / "spegel"


def files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_same_input_gives_same_bytes(stand_in, layout, tmp_path):
    run(ROOT / "scripts/image", "--program", stand_in, "--output", tmp_path)
    assert files(tmp_path / "spegel") == files(layout)
    assert (tmp_path / "spegel.cdx.json").read_bytes() == (layout.parent / "spegel.cdx.json").read_bytes()


def test_time_is_that_of_the_source(stand_in, tmp_path):
    run(ROOT / "scripts/image", "--program", stand_in, "--output", tmp_path, env={**os.environ, "SOURCE_DATE_EPOCH": "86400"})
    image = LayoutImage(tmp_path / "spegel", tmp_path / "root")
    assert image.config["created"] == "1970-01-02T00:00:00Z"
    for layer in image.manifest["layers"]:
        with tarfile.open(image.path(layer)) as archive:
            assert {entry.mtime for entry in archive} == {86400}


def test_layout_is_sound(layout, tmp_path):
    """Every descriptor has the size and digest it says, and other programs read it."""
    image = LayoutImage(layout, tmp_path / "root")
    index = json.loads((layout / "index.json").read_text())
    for descriptor in [*index["manifests"], image.manifest["config"], *image.manifest["layers"]]:
        content = image.path(descriptor).read_bytes()
        assert descriptor["size"] == len(content) and descriptor["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    differences = [f"sha256:{hashlib.sha256(gzip.decompress(image.path(layer).read_bytes())).hexdigest()}" for layer in image.manifest["layers"]]
    assert image.config["rootfs"]["diff_ids"] == differences
    labels = json.loads(run("skopeo", "inspect", f"oci:{layout}:0.1.0"))["Labels"]
    assert labels["org.opencontainers.image.revision"] == "abc" and labels["org.opencontainers.image.version"] == "0.1.0"
    run("umoci", "unpack", "--image", f"{layout}:0.1.0", tmp_path / "bundle")
    assert files(tmp_path / "bundle/rootfs") == files(tmp_path / "root")


def test_files_belong_to_root_and_are_readable_by_all(layout, tmp_path):
    """So the image also runs as another user."""
    image = LayoutImage(layout, tmp_path / "root")
    for layer in image.manifest["layers"]:
        with tarfile.open(image.path(layer)) as archive:
            for entry in archive:
                assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), entry.name
                assert entry.mode & 0o004 or entry.issym(), entry.name
                assert not entry.mode & 0o6000, entry.name


def test_only_what_is_needed_is_in_it(layout, tmp_path):
    image = LayoutImage(layout, tmp_path / "root")
    libraries = {path.name for path in image.directory.rglob("*.so*")}
    assert "libz.so.1" in libraries and "libcrypto.so.3" not in libraries, "the stand-in does not need libcrypto"
    assert {path.name for path in image.directory.rglob("*") if path.is_file() and os.access(path, os.X_OK)} == libraries | {"spegel"}
    assert (image.directory / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 50_000
    assert not (image.directory / "bin/sh").exists()


def test_program_runs_in_it(layout, tmp_path):
    image = LayoutImage(layout, tmp_path / "root")
    for entry in (image.entrypoint[0], "/spegel"):
        assert '"version":"0.1.0"' in run("unshare", "--root", image.directory, entry)


def test_bill_of_materials(layout):
    bill = json.loads((layout.parent / "spegel.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    components = {item["bom-ref"]: item for item in bill["components"]}
    assert len(components) == len(bill["components"])
    pins = json.loads((ROOT / "Package.resolved").read_text())["pins"]
    assert {f"swift:{pin['identity']}" for pin in pins} <= components.keys()
    assert {"deb:libc6", "deb:zlib1g", "deb:ca-certificates", "swift"} <= components.keys()
    (dependency,) = bill["dependencies"]
    assert dependency["ref"] == bill["metadata"]["component"]["bom-ref"] and set(dependency["dependsOn"]) == components.keys()
    assert all(item["version"] and item["purl"].startswith("pkg:") for item in components.values())


def test_program_with_foreign_libraries_is_refused(tmp_path):
    """A program that still needs Swift's libraries would not start in the image."""
    (tmp_path / "library.c").write_text("int answer(void) { return 1; }")
    (tmp_path / "main.c").write_text(STAND_IN.replace("int main", "int answer(void);\nint main").replace("return zlib", "return answer() - 1 + zlib"))
    run("cc", "-shared", "-o", tmp_path / "libanswer.so", tmp_path / "library.c")
    run("cc", "-o", tmp_path / "spegel", tmp_path / "main.c", "-lz", f"-L{tmp_path}", "-lanswer", f"-Wl,-rpath,{tmp_path}")
    done = subprocess.run([ROOT / "scripts/image", "--program", tmp_path / "spegel", "--output", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode != 0 and "libanswer.so is no library of the system" in done.stderr


def registry(directory, children):
    """Starts a registry and gives its address."""
    (directory / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\nhttp: {{addr: '127.0.0.1:5600'}}\nlog: {{level: warn}}\n")
    children.append(subprocess.Popen(["docker-registry", "serve", directory / "registry.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    eventually("the registry answers", lambda: get("http://127.0.0.1:5600/v2/")[0] == 200)
    return "127.0.0.1:5600"


@pytest.fixture
def children():
    started = []
    yield started
    for child in started:
        child.kill()
        child.wait()


def test_image_survives_push_and_pull(layout, tmp_path, children):
    layout = Path(os.environ.get("SPEGEL_TEST_IMAGE") or layout)
    address = registry(tmp_path, children)
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:0.1.0", f"docker://{address}/spegel:0.1.0")
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/spegel:0.1.0", f"oci:{tmp_path}/pulled:0.1.0")
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert json.loads((tmp_path / "pulled/index.json").read_text())["manifests"][0]["digest"] == digest


def test_chart_survives_push_and_pull(tmp_path, children):
    """The chart as an OCI artifact, through Helm's own client."""
    import helm_python

    address = registry(tmp_path, children)
    run(ROOT / "scripts/chart", "package", tmp_path / "packed")
    (archive,) = (tmp_path / "packed").glob("spegel-*.tgz")
    with helm_python.RegistryClient(plain_http=True) as client:
        client.push(archive, f"oci://{address}/charts")
        client.pull(f"oci://{address}/charts/spegel:0.1.0", destination=tmp_path)
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()


def test_containerfile_has_no_findings():
    run("hadolint", ROOT / "deploy/Containerfile")


def test_containerfile_gives_the_same_image(stand_in, layout, tmp_path):
    """The same files, entry point, environment and user; its first stage only runs scripts/image."""
    run(ROOT / "scripts/image", "--program", stand_in, "--root", tmp_path / "root")
    image = LayoutImage(layout, tmp_path / "layout")
    assert files(tmp_path / "root") == files(image.directory)
    last = (ROOT / "deploy/Containerfile").read_text().split("FROM scratch\n")[1]
    words = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in last.splitlines() if line and not line.startswith("#")}
    assert words["COPY"] == "--from=build /image/ /"
    assert words["ENV"].split() == image.config["config"]["Env"]
    assert words["USER"] == image.config["config"]["User"]
    assert json.loads(words["ENTRYPOINT"]) == image.config["config"]["Entrypoint"]


@pytest.mark.skipif(not os.environ.get("SPEGEL_TEST_IMAGE"), reason="make image-test runs it with the real image")
def test_real_image_is_small_and_self_contained(tmp_path):
    image = LayoutImage(Path(os.environ["SPEGEL_TEST_IMAGE"]), tmp_path / "root")
    assert sum(layer["size"] for layer in image.manifest["layers"]) < 30 << 20
    libraries = {path.name for path in image.directory.rglob("*.so*")}
    assert libraries == {"libc.so.6", "libm.so.6", "libz.so.1", "libstdc++.so.6", "libgcc_s.so.1", "libcrypto.so.3", "ld-linux-x86-64.so.2"}
    inside = ["unshare", "--fork", "--pid", "--mount-proc", "--root", image.directory, image.entrypoint[0], "version"]
    assert run(*inside).startswith("spegel ")
    # As another user, who can read everything that is needed.
    assert run("unshare", "--fork", "--pid", "--mount-proc", "--root", image.directory, "--setuid", "65532", "--setgid", "65532", *inside[-2:]).startswith("spegel ")
