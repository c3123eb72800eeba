import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program():
    """The daemon's program: SPEGEL_TEST_PROGRAM, or the debug build."""
    path = Path(os.environ.get("SPEGEL_TEST_PROGRAM", ROOT / ".build/debug/spegel"))
    assert path.exists(), f"{path} is missing: run `make` first"
    return path
