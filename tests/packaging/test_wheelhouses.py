"""What bundles bring exists as wheels for machines that are not this one, and pip, told of that machine, installs all of it.

Nothing here was run on Windows: this is what pip itself says of the Windows wheels.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from edge_latup.bundle.build import EXTRAS as EXTRAS_OF
from edge_latup.bundle.platforms import PLATFORMS, PYTHONS, PlatformName
from edge_latup.bundle.wheelhouse import Locked, lock_text, pip_target, resolve

pytestmark = pytest.mark.slow

EXTRAS: dict[PlatformName, tuple[str, ...]] = {
    "windows-x86-64": EXTRAS_OF["openvino"], "linux-aarch64": (*EXTRAS_OF["onnxruntime"], *EXTRAS_OF["tensorrt"]),
}  # fmt: skip
FOREIGN: dict[PlatformName, str] = {"windows-x86-64": r"\.so(\.|$)|\.dylib$", "linux-aarch64": r"\.pyd$|\.dll$|x86_64.*\.so$"}
"""Files of another system."""
WHEELS: dict[PlatformName, str] = {"windows-x86-64": "win_amd64", "linux-aarch64": "aarch64"}
NATIVE = ("numpy", "openvino", "connected-components-3d", "cryptography", "pydantic-core")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels are downloaded once, or never where EDGE_LATUP_WHEELS keeps them."""
    named = os.environ.get("EDGE_LATUP_WHEELS")
    return Path(named) if named else tmp_path_factory.mktemp("wheels")


def installed(wheels: tuple[Locked, ...], own: Path, store: Path, platform: PlatformName, python: str, out: Path) -> None:
    """Pip installs the lock, with every hash, for the other machine and without an index."""
    lock = out / "lock.txt"
    lock.write_text(lock_text(wheels), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "-r", str(lock), "--find-links", str(store / platform), "--find-links", str(own.parent)]
    command += [*pip_target(PLATFORMS[platform], python), "--target", str(out / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", EXTRAS)
def test_the_wheelhouse_is_complete_and_installs(platform: PlatformName, python: str, wheel: Path, store: Path, tmp_path: Path) -> None:
    wheels = resolve(wheel, EXTRAS[platform], PLATFORMS[platform], python, store / platform)
    tags = {one.name: {tag.platform for tag in parse_wheel_filename(one.file)[3]} for one in wheels}
    assert all(tag == "any" or tag.endswith(WHEELS[platform]) for found in tags.values() for tag in found), tags
    assert all("any" not in tags[name] for name in NATIVE)
    assert ("onnxruntime" in tags) == ("onnxruntime" in EXTRAS[platform])
    assert ("onnx" in tags) == ("audit" in EXTRAS[platform])
    assert ("cuda-bindings" in tags) == ("tensorrt" in EXTRAS[platform])
    assert "tensorrt" not in tags, "it is the machine's own"
    assert {"torch", "nncf", "onnxscript", "openvino-telemetry"}.isdisjoint(tags)
    installed(wheels, wheel, store, platform, python, tmp_path)
    names = [path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert not [name for name in names if re.search(FOREIGN[platform], name)]
    present = {name.split("/")[0] for name in names}
    assert {"edge_latup", "openvino", "numpy", "nibabel", "cc3d", "cryptography", "pydantic"} <= present
