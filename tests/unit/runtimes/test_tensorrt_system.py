"""An interpreter without packages finds the machine's TensorRT, and nothing else of the machine; any other interpreter is left as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import DistributionFinder
from pathlib import Path

import pytest

from edge_latup.runtimes import tensorrt_system
from edge_latup.runtimes.tensorrt_system import SystemTensorRt, allow_system_tensorrt, is_part, system_folders


def package(folder: Path, name: str, version: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("", encoding="ascii")
    (folder / f"{name}-{version}.dist-info").mkdir()
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tensorrt", "tensorrt_libs", "tensor", "numpy", "cuda"):
        package(tmp_path, name, "10.3.0")
    monkeypatch.setattr(tensorrt_system, "system_folders", lambda: (str(tmp_path),))
    return tmp_path


@pytest.mark.parametrize(("name", "found"), [
    ("tensorrt", True), ("tensorrt_libs", True), ("tensor", False), ("numpy", False), ("cuda", False), ("tensorrt_bindings", False),
])  # fmt: skip
def test_only_tensorrts_own_modules_are_found(machine: Path, name: str, found: bool) -> None:
    finder = SystemTensorRt()
    spec = finder.find_spec(name)
    assert (spec is not None) == found
    assert spec is None or spec.origin == str(machine / name / "__init__.py")
    versions = [one.version for one in finder.find_distributions(DistributionFinder.Context(name=name))]
    assert versions == (["10.3.0"] if found else [])


def test_what_lies_inside_a_package_is_the_packages_business(machine: Path) -> None:
    assert SystemTensorRt().find_spec("tensorrt.plugin", [str(machine / "tensorrt")]) is None
    assert list(SystemTensorRt().find_distributions()) == [], "nor is the machine's list of packages given away"


def test_an_interpreter_with_its_own_packages_is_left_as_it_is() -> None:
    before = list(sys.meta_path)
    allow_system_tensorrt()
    assert sys.meta_path == before


@pytest.mark.parametrize("answer", [b"", b"{", b"null", b'{"a": 1}'])
def test_an_interpreter_that_gives_no_answer_has_no_tensorrt(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    system_folders.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: subprocess.CompletedProcess((), 0, answer))
    assert system_folders() == ()
    system_folders.cache_clear()


def test_the_environment_decides_nothing(tmp_path: Path) -> None:
    """Whoever sets PYTHONPATH, or starts it in a folder of his own, does not get code loaded."""
    package(tmp_path, "tensorrt", "6.6.6")
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
        "from edge_latup.runtimes.tensorrt_system import allow_system_tensorrt, system_folders;"
        "allow_system_tensorrt(); allow_system_tensorrt(); import importlib.util;"
        "print(importlib.util.find_spec('tensorrt'), system_folders(), sum('SystemTensorRt' in str(one) for one in sys.meta_path))"
    )
    places = json.dumps([place for place in sys.path if place])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, places], check=False, capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "None () 1", done.stderr


def test_the_names() -> None:
    assert is_part("tensorrt") and is_part("tensorrt_bindings")  # noqa: PT018
    assert not is_part("tensorrtx")
