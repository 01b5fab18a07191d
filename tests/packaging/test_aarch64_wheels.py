"""What the clinic installs exists as wheels for ARM boards, and is found with the board's markers rather than this machine's."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from aarch64.wheelhouse import LIST, Machine, UnpinnedError, fill_from
from packaging.utils import parse_wheel_filename

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
JETPACK_6 = Machine(python="3.10", glibc=35)
DEBIAN_12 = Machine(python="3.11", glibc=36)


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", needs: tuple[str, ...] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    inside = f"{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {need}\n" for need in needs) + "".join(f"Provides-Extra: {extra}\n" for extra in ("core", "more"))
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{inside}/METADATA", METADATA.format(name=name, version=version, needs=lines))
        wheel.writestr(f"{inside}/WHEEL", WHEEL.format(tag=tag))
        wheel.writestr(f"{inside}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    return tmp_path / "index"


def constraints(folder: Path, *lines: str) -> Path:
    path = folder / "constraints.txt"
    path.write_text("# pins\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_markers_are_those_of_the_other_machine(index: Path, tmp_path: Path) -> None:
    """By itself pip, on this Python, would leave `old` out, and ask for `here`."""
    own = make_wheel(tmp_path, "own", "1", needs=(
        'old>=1; python_version < "3.11"', 'here; platform_machine == "x86_64"', 'there; platform_machine == "aarch64" and extra == "core"',
        'unasked; extra == "more"',
    ))  # fmt: skip
    make_wheel(index, "old", "1.5", needs=("deep",))
    make_wheel(index, "there", "2", "cp310-cp310-manylinux_2_28_aarch64")
    make_wheel(index, "there", "2", "cp310-cp310-manylinux_2_28_x86_64")
    make_wheel(index, "deep", "1")
    make_wheel(index, "deep", "3")
    pins = constraints(
        tmp_path, 'old==1.5; python_version < "3.11"', "there==2", 'deep==1; python_version < "3.11"', "deep==3; python_version >= '3.11'"
    )
    wheels = fill_from([f"{own}[core]"], tmp_path / "out", JETPACK_6, pins)
    assert [path.name for path in wheels] == [
        "deep-1-py3-none-any.whl", "old-1.5-py3-none-any.whl", own.name, "there-2-cp310-cp310-manylinux_2_28_aarch64.whl",
    ]  # fmt: skip
    listed = (tmp_path / "out" / LIST).read_text(encoding="utf-8").splitlines()
    assert [line.partition(" --hash=sha256:")[0] for line in listed] == ["deep==1", "old==1.5", "there==2"]


def test_what_was_fetched_is_not_fetched_again(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index, "one", "1", needs=("two",))
    make_wheel(index, "two", "2")
    pins = constraints(tmp_path, "one==1", "two==2")
    first = fill_from(["one"], tmp_path / "out", DEBIAN_12, pins)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fill_from(["one"], tmp_path / "out", DEBIAN_12, pins) == first


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        (("one==1",), "one needs two, which constraints.txt does not pin for Python 3.11 on aarch64"),
        (("one==1", "two==1"), "one needs two>=2, constraints.txt pins 1 for Python 3.11 on aarch64"),
        (("one==1", "two==2; python_version < '3.11'"), "one needs two, which constraints.txt does not pin for Python 3.11"),
        (("one==1", "two==2"), "pip cannot fetch two==2 for Python 3.11 on aarch64"),
    ],
)
def test_what_cannot_be_had_is_named(index: Path, tmp_path: Path, pins: tuple[str, ...], message: str) -> None:
    """The wheel of `two` is for x86, and for a C library that is too new."""
    make_wheel(index, "one", "1", needs=("two>=2",))
    make_wheel(index, "two", "2", "cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(index, "two", "2", "cp311-cp311-manylinux_2_39_aarch64")
    with pytest.raises((UnpinnedError, SystemExit), match=message):
        fill_from(["one"], tmp_path / "out", DEBIAN_12, constraints(tmp_path, *pins))


@pytest.mark.slow
@pytest.mark.parametrize("machine", [JETPACK_6, DEBIAN_12], ids=["JetPack 6", "Debian 12"])
def test_the_clinic_core_and_both_runtimes_exist_for_aarch64(machine: Machine, wheel: Path, tmp_path: Path) -> None:
    """Fetched for real, from where pip looks here."""
    wheels = fill_from([f"{wheel}[core,onnxruntime]"], tmp_path, machine)
    tags = {parse_wheel_filename(path.name)[0]: {tag.platform for tag in parse_wheel_filename(path.name)[3]} for path in wheels}
    for native in ("numpy", "openvino", "onnxruntime", "connected-components-3d", "pydantic-core"):
        assert all(platform.endswith("_aarch64") for platform in tags[native]), native
    assert not any("x86" in platform for platforms in tags.values() for platform in platforms)
