"""Wheels for a machine that is not this one: what constraints.txt pins for it, fetched here, to be installed there offline.

    python tests/aarch64/wheelhouse.py --python 3.10 --out FOLDER 'dist/edge_latup-0.1.0-py3-none-any.whl[core]'

pip chooses wheels for `--platform` and `--python-version`, but evaluates markers such as `python_version < "3.11"` for the Python it
runs in (pypa/pip#11664). So the requirements are walked here, with the other machine's markers, and pip fetches exact versions only.
Where pip looks is the user's own configuration.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

CONSTRAINTS: Final = Path(__file__).resolve().parents[2] / "constraints.txt"
LIST: Final = "requirements.txt"
"""Every wheel of the folder with its SHA-256, as `pip install --require-hashes` reads it; but not those given as files."""
OLDEST_GLIBC: Final = 17
"""manylinux2014; nothing older knows aarch64."""


class UnpinnedError(SystemExit):
    """A requirement that constraints.txt does not settle for that machine."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the wheels will run: Linux, with `glibc` the second part of its C library's version."""

    python: str
    architecture: str = "aarch64"
    glibc: int = 35

    @property
    def markers(self) -> dict[str, str]:
        """Values of the environment markers; the patch release is not known, so it counts as 0."""
        return {
            "python_version": self.python, "python_full_version": f"{self.python}.0", "implementation_version": f"{self.python}.0",
            "implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_machine": self.architecture,
            "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_release": "", "platform_version": "",
        }  # fmt: skip

    @property
    def pip_options(self) -> list[str]:
        """What makes pip choose wheels for it: a wheel runs with its own and every newer C library."""
        names = [f"manylinux2014_{self.architecture}"]
        names += [f"manylinux_2_{minor}_{self.architecture}" for minor in range(OLDEST_GLIBC, self.glibc + 1)]
        platforms = [option for name in names for option in ("--platform", name)]
        return [*platforms, "--python-version", self.python, "--implementation", "cp", "--only-binary", ":all:"]


def read_pins(constraints: Path, machine: Machine) -> dict[str, str]:
    """Version of each package for `machine`."""
    pins = {}
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(machine.markers):
                pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return pins


@dataclass(frozen=True, kw_only=True)
class Wheelhouse:
    """A folder of wheels for one machine. What lies there from an earlier run is used again."""

    folder: Path
    machine: Machine
    pins: dict[str, str]
    given: dict[str, Path] = field(default_factory=dict)
    """Packages that are files here and are not fetched."""

    def fill(self, wanted: Iterable[Requirement]) -> list[Path]:
        """Bring in `wanted` and all that it needs; the wheels, in the order of their names.

        Raises:
            UnpinnedError: constraints.txt has no version for one, or one that does not do.
            SystemExit: pip cannot fetch one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        reached: dict[str, set[str]] = {}
        frontier = list(wanted)
        for one in frontier:
            self._check(one, "this call")
        while frontier:
            self._fetch({canonicalize_name(one.name) for one in frontier})
            found = []
            for one in frontier:
                extras = reached.setdefault(canonicalize_name(one.name), set())
                new = {"", *one.extras} - extras
                extras |= new
                found += [need for extra in sorted(new) for need in self._needs(one, extra)]
            frontier = found
        return [self._wheel(name) for name in sorted(reached)]

    def _needs(self, requirement: Requirement, extra: str) -> Iterator[Requirement]:
        with zipfile.ZipFile(self._wheel(requirement.name)) as wheel:
            [metadata] = [name for name in wheel.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
            stated = parse_email(wheel.read(metadata))[0].get("requires_dist", [])
        for need in map(Requirement, stated):
            if need.marker is None or need.marker.evaluate({**self.machine.markers, "extra": extra}):
                self._check(need, requirement.name)
                yield need

    def _check(self, need: Requirement, asking: str) -> None:
        name = canonicalize_name(need.name)
        if name in self.given:
            return
        where = f"Python {self.machine.python} on {self.machine.architecture}"
        if name not in self.pins:
            raise UnpinnedError(f"{asking} needs {need.name}, which constraints.txt does not pin for {where}")
        if not need.specifier.contains(self.pins[name], prereleases=True):
            raise UnpinnedError(f"{asking} needs {need}, constraints.txt pins {self.pins[name]} for {where}")

    def _wheel(self, name: str) -> Path:
        own = canonicalize_name(name)
        if own in self.given:
            return self.given[own]
        for path in self.folder.glob("*.whl"):
            package, version, _, _ = parse_wheel_filename(path.name)
            if package == own and str(version) == self.pins[own]:
                return path
        raise FileNotFoundError(f"{self.folder} holds no wheel of {name} {self.pins[own]}")

    def _has(self, name: str) -> bool:
        try:
            return self._wheel(name).is_file()
        except FileNotFoundError:
            return False

    def _fetch(self, names: set[str]) -> None:
        missing = [f"{name}=={self.pins[name]}" for name in sorted(names) if not self._has(name)]
        if not missing:
            return
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, *self.machine.pip_options, "--dest", self.folder, *missing], check=False)
        if done.returncode != 0:
            raise SystemExit(f"pip cannot fetch {' '.join(missing)} for Python {self.machine.python} on {self.machine.architecture}")


def split_extras(text: str) -> tuple[Path, str]:
    """Path and "[extras]" of a text such as "dist/name.whl[core]"."""
    path, bracket, extras = text.partition("[")
    return Path(path), bracket + extras


def write_list(folder: Path, wheels: Iterable[Path]) -> Path:
    """Write `LIST`, and copy nothing."""
    lines = []
    for path in wheels:
        package, version, _, _ = parse_wheel_filename(path.name)
        lines.append(f"{package}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    out = folder / LIST
    out.write_text("".join(lines), encoding="utf-8")
    return out


def fill_from(texts: Iterable[str], folder: Path, machine: Machine, constraints: Path = CONSTRAINTS) -> list[Path]:
    """Fetch what `texts` need, each a wheel's path or a package name, with extras, and write the list; the wheels, given ones too."""
    wanted, given = [], {}
    for text in texts:
        path, extras = split_extras(text)
        name = text
        if path.suffix == ".whl":
            package = parse_wheel_filename(path.name)[0]
            given[package], name = path, f"{package}{extras}"
        wanted.append(Requirement(name))
    house = Wheelhouse(folder=folder, machine=machine, pins=read_pins(constraints, machine), given=given)
    wheels = house.fill(wanted)
    write_list(folder, [path for path in wheels if path not in given.values()])
    return wheels


def main() -> None:
    """Fill a folder as the command line asks, and say what lies in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="+", help="wheels or package names, with extras")
    parser.add_argument("--python", required=True, help="such as 3.10")
    parser.add_argument("--glibc", type=int, default=35, help="35 for 2.35, which JetPack 6 and Ubuntu 22.04 have")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    machine = Machine(python=asked.python, glibc=asked.glibc)
    wheels = fill_from(asked.wanted, asked.out, machine)
    megabytes = sum(path.stat().st_size for path in wheels) / 1e6
    sys.stdout.write(f"{asked.out}: {len(wheels)} wheels for Python {machine.python} on {machine.architecture}, {megabytes:.0f} MB\n")


if __name__ == "__main__":
    main()
