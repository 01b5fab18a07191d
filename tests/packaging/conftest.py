"""The repository as it stands, and the wheel built from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("edge_latup", "export", "quantize", "bench", "targets")
METADATA = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sources(root: Path) -> dict[str, Path]:
    """Path inside the wheel -> file in the repository, for every file below a published folder."""
    found = {}
    for room in ROOMS:
        prefix = Path() if room == "edge_latup" else Path("edge_latup")
        for path in sorted((root / room).rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and "__pycache__" not in inside.parts and not any(part.startswith(".") for part in inside.parts):
                found[(prefix / inside).as_posix()] = path
    return found


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: nothing left over from an earlier build gets in, nothing is left behind."""
    copy = tmp_path_factory.mktemp("sources")
    for room in ROOMS:
        shutil.copytree(root / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in METADATA:
        shutil.copy(root / name, copy)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))
