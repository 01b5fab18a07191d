"""What a clinic installs: the base dependencies and one runtime, on the oldest supported Python too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_CORE = Path(__file__).parent / "import_core.py"
OLDEST = "python3.10"


def _oldest_python() -> Path:
    """A Python 3.10 that really runs: a version manager's stand-in on PATH may not."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.10*/bin"))
    for candidate in (folder / OLDEST for folder in folders):
        if candidate.is_file() and subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"no {OLDEST} that runs, neither on PATH nor with pyenv")


@pytest.fixture(scope="module", params=["this Python", OLDEST])
def python(request: pytest.FixtureRequest, wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment that holds edge-latup[core] and nothing else."""
    base = Path(sys.executable) if request.param == "this Python" else _oldest_python()
    venv = tmp_path_factory.mktemp("clinic")
    subprocess.run([base, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    install = [*pip, "install", "--quiet", "--constraint", root / "constraints.txt", f"{wheel}[core]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_every_module_of_the_core_imports(python: Path, tmp_path: Path) -> None:
    done = _run(python, IMPORT_CORE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["file"]).is_relative_to(python.parents[1])


def test_no_heavy_package_came_along(python: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    names = set(_run(python, "-c", code, cwd=tmp_path).stdout.split())
    assert "openvino" in names
    assert names.isdisjoint({"torch", "onnx", "nncf", "scipy", "matplotlib", "plotly"})


@pytest.mark.parametrize("folder", ["export", "quantize", "bench", "targets"])
def test_root_folders_have_no_name_of_their_own(python: Path, folder: str, tmp_path: Path) -> None:
    done = _run(python, "-c", f"import {folder}", cwd=tmp_path)
    assert "ModuleNotFoundError" in done.stderr


def test_the_command_answers(python: Path, tmp_path: Path) -> None:
    done = _run(python.parent / "edge-latup", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phantom" in done.stdout
