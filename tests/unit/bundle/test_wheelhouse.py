"""Wheelhouses are resolved for the target, not for the machine that makes them. The wheels here are made up."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_latup.bundle.platforms import PLATFORMS, PYTHONS
from edge_latup.bundle.wheelhouse import lock_text, own_constraints, pins_for, resolve
from edge_latup.errors import InputError

PINS = """
alpha==1.0
beta==2.0; python_version < "3.11"
beta==3.0; python_version >= "3.11"
colorama==0.4.6  # Windows only
gamma==1.5
openvino-telemetry==1.0
pip==26.3
"""
REQUIRES = {
    "edge-latup": ["alpha>=1", 'gamma[fast]>=1; extra == "core"', 'delta; extra == "engineer"'],
    "alpha": ['colorama; platform_system == "Windows"', 'beta; python_version < "3.12"', "openvino-telemetry>=1"],
    "gamma": ['beta; extra == "fast"', 'gamma-slow; extra == "slow"'],
}


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any") -> Path:
    """A wheel with what pip reads of one, and nothing else."""
    plain = name.replace("-", "_")
    path = folder / f"{plain}-{version}-{tag}.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in REQUIRES.get(name, []))]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{plain}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(f"{plain}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{plain}-{version}.dist-info/RECORD", "")
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_wheel(tmp_path, "edge-latup", "0.1.0")


def fetch(requirements: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in requirements:
        make_wheel(folder, *one.split("=="))


@pytest.mark.parametrize(
    ("platform", "python", "expected"),
    [
        ("linux-x86-64", "3.10", {"alpha 1.0", "beta 2.0", "gamma 1.5"}),
        ("linux-aarch64", "3.11", {"alpha 1.0", "beta 3.0", "gamma 1.5"}),
        ("windows-x86-64", "3.13", {"alpha 1.0", "beta 3.0", "gamma 1.5", "colorama 0.4.6"}),
    ],
)
def test_markers_are_those_of_the_target(own: Path, tmp_path: Path, platform: str, python: str, expected: set[str]) -> None:
    found = resolve(own, ["core"], PLATFORMS[platform], python, tmp_path / "wheels", constraints=PINS, fetch=fetch)  # type: ignore[index]
    assert {f"{one.name} {one.version}" for one in found} == expected | {"edge-latup 0.1.0", "pip 26.3"}
    assert next(one.requires for one in found if one.name == "gamma") == ("beta",)


def test_the_lock_has_every_hash_and_not_pip(own: Path, tmp_path: Path) -> None:
    found = resolve(own, ["core"], PLATFORMS["linux-x86-64"], "3.11", tmp_path / "wheels", constraints=PINS, fetch=fetch)
    lines = lock_text(found).splitlines()
    assert [line.partition("==")[0] for line in lines] == ["alpha", "beta", "edge-latup", "gamma"]
    digest = hashlib.sha256((tmp_path / "wheels" / "alpha-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert lines[0] == f"alpha==1.0 --hash=sha256:{digest}"


def test_a_folder_may_hold_wheels_of_other_pythons(own: Path, tmp_path: Path) -> None:
    def compiled(requirements: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for one in requirements:
            for tag in ("cp310-cp310-manylinux_2_28_x86_64", "cp311-abi3-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_28_x86_64"):
                make_wheel(folder, *one.split("=="), tag)

    found = resolve(own, [], PLATFORMS["linux-x86-64"], "3.11", tmp_path / "wheels", constraints=PINS, fetch=compiled)
    assert all("cp311-abi3" in one.file for one in found if one.name != "edge-latup")


def test_what_has_no_pin_or_another_is_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no version is pinned for delta"):
        resolve(own, ["engineer"], PLATFORMS["linux-x86-64"], "3.11", tmp_path / "a", constraints=PINS, fetch=fetch)
    other = PINS.replace("gamma==1.5", "gamma==0.9")
    with pytest.raises(InputError, match=r"edge-latup needs gamma\[fast\]>=1.*, but the pin is gamma==0.9"):
        resolve(own, ["core"], PLATFORMS["linux-x86-64"], "3.11", tmp_path / "b", constraints=other, fetch=fetch)


def test_no_wheel_for_the_target_is_an_error(own: Path, tmp_path: Path) -> None:
    def windows_only(requirements: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for one in requirements:
            make_wheel(folder, *one.split("=="), "cp311-cp311-win_amd64")

    with pytest.raises(InputError, match="pip brought no wheel of pip 26.3"):
        resolve(own, [], PLATFORMS["linux-x86-64"], "3.11", tmp_path / "wheels", constraints=PINS, fetch=windows_only)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_projects_own_pins_hold_one_version_of_each_package(platform: str, python: str) -> None:
    pins = pins_for(own_constraints(), PLATFORMS[platform].environment(python))  # type: ignore[index]
    assert {"numpy", "nibabel", "openvino", "pip", "pydantic", "typer", "cryptography", "colorama"} <= pins.keys()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip itself looks."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def fill(index: Path, alpha: str) -> None:
    """What edge-latup and pip need on Linux with Python 3.11, `alpha` with this tag."""
    make_wheel(index, "alpha", "1.0", alpha)
    for name, version in (("beta", "3.0"), ("beta", "2.0"), ("pip", "26.3")):
        make_wheel(index, name, version)


def test_pip_fetches_for_the_target_and_only_once(own: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself pip, on this machine, would take the wheel for x86-64."""
    fill(index, "cp311-cp311-manylinux_2_28_aarch64")
    make_wheel(index, "alpha", "1.0", "cp311-cp311-manylinux_2_28_x86_64")
    found = resolve(own, [], PLATFORMS["linux-aarch64"], "3.11", tmp_path / "out", constraints=PINS)
    assert [one.file for one in found if one.name in ("alpha", "beta")] == [
        "alpha-1.0-cp311-cp311-manylinux_2_28_aarch64.whl", "beta-3.0-py3-none-any.whl",
    ]  # fmt: skip
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert resolve(own, [], PLATFORMS["linux-aarch64"], "3.11", tmp_path / "out", constraints=PINS) == found


@pytest.mark.parametrize("tag", ["cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_39_aarch64", "cp312-cp312-linux_aarch64"])
def test_a_wheel_that_the_target_cannot_run_is_not_taken(own: Path, index: Path, tmp_path: Path, tag: str) -> None:
    """For another machine, for a C library that is too new, for another Python."""
    fill(index, tag)
    with pytest.raises(InputError, match="no wheel of every package could be fetched for linux-aarch64, Python 3.11") as caught:
        resolve(own, [], PLATFORMS["linux-aarch64"], "3.11", tmp_path / "out", constraints=PINS)
    assert "alpha==1.0" in caught.value.message
