import os
from pathlib import Path

import pytest

from cluster import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program():
    """The daemon's program: SPEGEL_TEST_PROGRAM, or the debug build."""
    path = Path(os.environ.get("SPEGEL_TEST_PROGRAM", ROOT / ".build/debug/spegel"))
    assert path.exists(), f"{path} is missing: run `make` first"
    return path


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """A layout with one image of generated data, a few MiB large."""
    layout = ROOT / ".build/test-images/deploy"
    layout.parent.mkdir(parents=True, exist_ok=True)
    run(ROOT / "scripts/make-image", layout, "--no-packages", "--size", "4", "--name", "docker.io/library/demo:1.0")
    return layout
