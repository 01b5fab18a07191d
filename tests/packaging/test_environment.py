"""The environment the tests run in: the installed wheel, and nothing that is not pinned."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from pathlib import Path

import edge_latup

# torch names the exact versions of its CUDA packages itself; the CPU build has none. pip comes with Python,
# TensorRT with the machine whose GPU it is for.
PINNED_ELSEWHERE = re.compile(r"nvidia-|cuda-|tensorrt|triton$|pip$|edge-latup$")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_installed_wheel_is_tested(root: Path) -> None:
    where = Path(edge_latup.__file__).resolve()
    assert where != root / "edge_latup" / "__init__.py", (
        "the source tree shadows the wheel: run `make test`, or pytest (not python -m pytest)"
    )


def test_every_installed_package_is_pinned(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.partition(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#"))
    pinned = {_canonical(name) for name in pins}
    # Only what is installed: once setuptools is imported, sys.path also has the packages it carries inside.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    installed = {_canonical(distribution.name) for distribution in importlib.metadata.distributions(path=folders)}
    loose = sorted(name for name in installed - pinned if not PINNED_ELSEWHERE.match(name))
    assert not loose, f"add these to constraints.txt, or take them out of the environment: {loose}"
