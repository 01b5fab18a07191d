"""A locked wheelhouse for another platform and Python: resolved from pins and metadata, without running any of its code.

pip evaluates environment markers for the Python that runs it, also where --python-version and --platform name another. So the
requirements are followed here: markers are evaluated for the target, each package has the one version that constraints.txt pins, and
pip only downloads what it is told to.
"""

from __future__ import annotations

import email.parser
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.bundle.platforms import WheelPlatform
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.tags import Tag

OWN: Final = "edge-latup"
PIP: Final = "pip"
"""Ships with every wheelhouse: Debian's system Python has neither pip nor ensurepip."""
LEFT_OUT: Final = frozenset({"openvino-telemetry"})
"""OpenVINO names it as a requirement and works without it; it would report every use to Google Analytics."""
PINS: Final = ("constraints.txt", "cuda-constraints.txt")
LAST_LINES: Final = 8
Fetch = Callable[[Sequence[str], Path], None]
"""Downloads wheels of the pinned requirements, such as "numpy==2.4.6", into a folder."""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One wheel of the lock."""

    name: str
    version: str
    file: str
    sha256: str
    requires: tuple[str, ...] = ()
    """Names of the packages it needs on this platform and Python."""


@dataclass
class _State:
    tags: frozenset[Tag]
    extras: dict[str, set[str]] = field(default_factory=dict)
    wheels: dict[str, Path] = field(default_factory=dict)
    requires: dict[str, set[str]] = field(default_factory=dict)


def resolve(
    own: Path, extras: Iterable[str], platform: WheelPlatform, python: str, folder: Path, *, constraints: str | None = None,
    fetch: Fetch | None = None,
) -> tuple[Locked, ...]:  # fmt: skip
    """Download every wheel that `own`[extras] and pip itself need on `platform` and CPython `python` into `folder`.

    Args:
        own: edge-latup's wheel.
        extras: of it, such as "core".
        platform: where the wheels will run.
        python: such as "3.11".
        folder: gets the wheels; those that are there already are kept.
        constraints: text of the pins; the ones edge-latup is tested with unless given.
        fetch: pip unless given.

    Returns:
        The wheels sorted by name, `own` among them.

    Raises:
        InputError: a package has no pin, the pin does not satisfy what is required, or no wheel of it exists for the target.
    """
    environment = platform.environment(python)
    pins = pins_for(constraints if constraints is not None else own_constraints(), environment)
    download = fetch or _pip(platform, python)
    state = _State(tags=platform.wheel_tags(python), wheels={OWN: own})
    wanted = {PIP: set[str](), OWN: set(extras)}
    while wanted:
        _fetch_missing(wanted, pins, state, folder, download)
        wanted = _needed_by(wanted, state, environment, pins)
    return tuple(sorted((_locked(name, state) for name in state.wheels), key=lambda locked: locked.name))


def own_constraints() -> str:
    """Text of the constraints.txt that this version of edge-latup was tested with, and of the pins of what only a wheelhouse brings."""
    folder = resources.files("edge_latup.bundle")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in PINS)


def pins_for(constraints: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Version of each package that a constraints file pins for an environment, by normalised name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (line.partition("#")[0].strip() for line in constraints.splitlines())
    required = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(one.name): next(iter(one.specifier)).version
        for one in required
        if one.marker is None or one.marker.evaluate(dict(environment))
    }


def requirements_of(wheel: Path) -> list[Requirement]:
    """Requires-Dist of a wheel's metadata."""
    from packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
        metadata = email.parser.Parser().parsestr(opened.read(name).decode("utf-8"))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist") or ()]


def _fetch_missing(wanted: Iterable[str], pins: Mapping[str, str], state: _State, folder: Path, fetch: Fetch) -> None:
    missing = sorted(name for name in wanted if name not in state.wheels)
    if unpinned := [name for name in missing if name not in pins]:
        raise InputError(f"no version is pinned for {', '.join(unpinned)}", "add it to the constraints")
    if absent := [f"{name}=={pins[name]}" for name in missing if _wheel_of(name, pins[name], folder, state.tags) is None]:
        fetch(absent, folder)
    for name in missing:
        wheel = _wheel_of(name, pins[name], folder, state.tags)
        if wheel is None:
            raise InputError(f"pip brought no wheel of {name} {pins[name]}", "see what pip says of it: pip download --no-deps")
        state.wheels[name] = wheel


def _wheel_of(name: str, version: str, folder: Path, tags: frozenset[Tag]) -> Path | None:
    """The wheel that was fetched; the folder may hold those of other Pythons too."""
    from packaging.utils import parse_wheel_filename
    from packaging.version import Version

    for path in sorted(folder.glob("*.whl")):
        found = parse_wheel_filename(path.name)
        if (found[0], found[1]) == (name, Version(version)) and found[3] & tags:
            return path
    return None


def _needed_by(
    asked: Mapping[str, set[str]], state: _State, environment: Mapping[str, str], pins: Mapping[str, str]
) -> dict[str, set[str]]:  # fmt: skip
    """What the packages of one round require, with extras that were not followed yet."""
    from packaging.utils import canonicalize_name

    found: dict[str, set[str]] = {}
    for name, extras in asked.items():
        state.extras.setdefault(name, set()).update(extras)
        for one in requirements_of(state.wheels[name]):
            if not _applies(one, state.extras[name], environment):
                continue
            required = str(canonicalize_name(one.name))
            if required in LEFT_OUT:
                continue
            _check_pin(one, required, pins, name)
            state.requires.setdefault(name, set()).add(required)
            if required not in state.wheels or set(one.extras) - state.extras.get(required, set()):
                found.setdefault(required, set()).update(one.extras)
    return found


def _applies(required: Requirement, extras: Iterable[str], environment: Mapping[str, str]) -> bool:
    marker = required.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))


def _check_pin(required: Requirement, name: str, pins: Mapping[str, str], by: str) -> None:
    if name in pins and not required.specifier.contains(pins[name], prereleases=True):
        raise InputError(f"{by} needs {required}, but the pin is {name}=={pins[name]}", "correct the constraints")


def _locked(name: str, state: _State) -> Locked:
    from packaging.utils import parse_wheel_filename

    path = state.wheels[name]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    version = str(parse_wheel_filename(path.name)[1])
    return Locked(name=name, version=version, file=path.name, sha256=digest, requires=tuple(sorted(state.requires.get(name, ()))))


def pip_target(platform: WheelPlatform, python: str) -> list[str]:
    """Options with which pip downloads, or installs into a folder, wheels of another platform and Python; nothing is built."""
    abi = f"cp{python.replace('.', '')}"
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    return options + [f"--abi={tag}" for tag in (abi, "abi3", "none")] + [f"--platform={tag}" for tag in (*platform.tags, "any")]


def _pip(platform: WheelPlatform, python: str) -> Fetch:
    """Pip's download, for wheels of one platform and Python; no dependency is followed."""
    options = ["--no-deps", *pip_target(platform, python)]

    def fetch(requirements: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="edge-latup-wheels-") as temporary:
            listed = Path(temporary, "requirements.txt")
            listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", *options, "-d", str(folder)]
            done = subprocess.run([*command, "-r", str(listed)], capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
            what = f"no wheel of every package could be fetched for {platform.name}, Python {python}"
            raise InputError(f"{what}: {said}", "check the network and pip's index, or leave this Python out with --python")

    return fetch


def lock_text(wheels: Iterable[Locked]) -> str:
    """A requirements file for pip's --require-hashes, one wheel a line; pip itself installs them and is not installed."""
    return "".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in wheels if one.name != PIP)
