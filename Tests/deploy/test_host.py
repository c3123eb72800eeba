"""What plain hosts get: units, manual pages, completions, the tarball."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import tarfile

import pytest

from cluster import run
from helm import ROOT

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit_is_correct_and_confined(unit, program, tmp_path):
    text = unit.read_text().replace("/usr/bin/spegel", str(program))
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    report = run("systemd-analyze", "security", "--offline=true", "--no-pager", copy)
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)[1])
    assert exposure < 2.0, report


def settings(path):
    """The variables an environment file sets, also those that are commented out."""
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", path.read_text(), re.M))


def test_environment_file_has_options_that_exist(program):
    dump = json.loads(run(program, "--experimental-dump-help"))
    commands = {command["commandName"]: command for command in dump["command"]["subcommands"]}
    known = {
        name["name"].upper().replace("-", "_")
        for command in ("registry", "configuration")
        for argument in commands[command]["arguments"] for name in argument.get("names", []) if name["kind"] == "long"
    }
    assert settings(ROOT / "deploy/systemd/spegel.env").keys() <= known


@pytest.fixture(scope="session")
def pages(program, tmp_path_factory):
    directory = tmp_path_factory.mktemp("man")
    run(ROOT / "scripts/man", program, directory)
    return directory


def test_manual_pages_are_complete_and_clean(program, pages):
    dump = json.loads(run(program, "--experimental-dump-help"))
    commands = [command for command in dump["command"]["subcommands"] if command["commandName"] != "help"]
    assert {path.name for path in pages.iterdir()} == {"spegel.1"} | {f"spegel-{command['commandName']}.1" for command in commands}
    for path in pages.iterdir():
        done = subprocess.run(["groff", "-man", "-ww", "-z", "-Tutf8", path], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
    for command in commands:
        text = run("man", "--local-file", pages / f"spegel-{command['commandName']}.1", env={**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8"})
        for argument in command.get("arguments", []):
            for name in argument.get("names", []):
                if name["kind"] == "long":
                    assert f"--{name['name']}" in text
                    assert name["name"] in ("help", "version") or f"Environment: {name['name'].upper().replace('-', '_')}." in text
    assert "Default: :5000." in run("man", "--local-file", pages / "spegel-registry.1", env={**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8"})


def completion(program, shell, tmp_path):
    path = tmp_path / f"spegel.{shell}"
    path.write_text(run(program, "--generate-completion-script", shell))
    return path


def test_bash_completes(program, tmp_path):
    script = completion(program, "bash", tmp_path)
    words = "\n".join([
        f"source {script}", "COMP_WORDS=(spegel regi) COMP_CWORD=1 COMP_LINE='spegel regi' COMP_POINT=11", "_spegel spegel regi spegel", 'echo "${COMPREPLY[*]}"'])
    assert run("bash", "--norc", "-c", words, env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}).split() == ["registry"]


def test_zsh_completion_parses(program, tmp_path):
    run("zsh", "-n", completion(program, "zsh", tmp_path))


def test_fish_completes(program, tmp_path):
    script = completion(program, "fish", tmp_path)
    answer = run("fish", "--no-config", "-c", f"source {script}; complete -C 'spegel regi'", env={**os.environ, "HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"})
    assert [line.split("\t")[0] for line in answer.splitlines()] == ["registry"]


@pytest.fixture(scope="session")
def stripped(program, tmp_path_factory):
    """A debug build is mostly debug information, which takes a minute to compress."""
    path = tmp_path_factory.mktemp("stripped") / "spegel"
    run("strip", "-o", path, program)
    return path


def dist(program, output):
    run(ROOT / "scripts/dist", "--program", program, "--output", output)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_tarball(stripped, tmp_path):
    """Twice the same bytes, checksums that are right, and every file where a host looks for it."""
    files = dist(stripped, tmp_path / "first")
    assert files == dist(stripped, tmp_path / "second")
    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "SHA256SUMS"}
    (archive,) = [name for name in files if name.endswith(".tar.gz")]
    assert re.fullmatch(r"spegel-[0-9.]+-linux-(amd64|arm64)\.tar\.gz", archive)
    with tarfile.open(tmp_path / "first" / archive) as tar:
        names = {entry.name for entry in tar if entry.isfile()}
        assert all((entry.uid, entry.gid) == (0, 0) and entry.mode in (0o644, 0o755) for entry in tar)
        assert gzip.decompress(tar.extractfile("usr/share/man/man1/spegel-registry.1.gz").read()).startswith(b".TH")
        assert tar.extractfile("usr/bin/spegel").read() == stripped.read_bytes()
    assert {"usr/lib/systemd/system/spegel.service", "usr/share/bash-completion/completions/spegel", "usr/share/zsh/vendor-completions/_spegel",
            "usr/share/fish/vendor_completions.d/spegel.fish", "usr/share/doc/spegel/spegel.env"} <= names
    # Unpacked at /, it must not touch what an operator edits.
    assert all(name.startswith("usr/") for name in names)
