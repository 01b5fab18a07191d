"""Target profiles: what a class of hardware can do, read from TOML, every figure with its source."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from edge_latup.errors import InputError, MissingDependencyError, SpecError, install_hint
from edge_latup.manifest import Precision, RuntimeName
from edge_latup.records import Record, summary_of, write_text
from edge_latup.targets.host_state import HostState
from edge_latup.targets.isa import IsaName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
FigureKind = Literal["published", "calculated", "measured"]
TargetKind = Literal["gpu", "jetson", "x86"]


class Figure(Record):
    """One number and where it comes from.

    kind: "published" by the source, "calculated" from what the source publishes (the note says how), or "measured" on a host.
    """

    value: float = Field(gt=0)
    kind: FigureKind
    source: Text
    """Documents by name and address, parted by "; ", or the command that measured it. "(not read)" after a name: its text was not
    compared with the figure, which then rests on the others named, if any. "third party" before it: not the maker's own."""
    note: str = ""


class PowerMode(Record):
    """One power mode a board can be set to."""

    name: Text
    watts: Figure | None = None
    """None for a mode without a stated limit."""
    gpu_share: Figure | None = None
    """Share of the peak rates that the GPU's clock and the units left on allow in this mode; None where it is not known."""
    bandwidth_gb_s: Figure | None = None
    """Where the mode slows the memory down."""


class TensorRtGeneration(Record):
    """One system release of a target and the TensorRT that comes with it."""

    system: Text
    """Such as "JetPack 6.2"."""
    tensorrt: Text
    """Version or series, such as "10.3"."""
    python: str = ""
    """The system's own Python, such as "3.10"; empty where any will do."""
    newest_opset: int | None = Field(None, ge=1)
    """The newest ONNX opset its parser reads, where that is older than what edge-latup exports."""
    source: Text
    note: str = ""


class Refusal(Record):
    """Something the target cannot do, why, and the next best option."""

    reason: Text
    instead: Text
    source: Text


class Profile(Record):
    """One target: the hardware a model is to run on. A file of targets/profiles, or made by `edge-latup targets probe`."""

    schema_version: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: Text
    kind: TargetKind
    processor: Text
    architecture: Literal["x86-64", "aarch64"]
    """Of the CPU that feeds the model."""
    isa: IsaName | None = None
    """For x86: the instruction set whose kernels the target runs; "native" for a probed host and for AMX."""
    cores: int | None = Field(None, ge=1)
    """CPU cores; for x86 the rates below are those of all of them."""
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d$")] | None = None
    """Of the GPU, such as "8.6"."""
    gmacs: dict[Precision, Figure]
    """Peak dense 10^9 multiply-accumulates a second in each precision the target computes in (two operations are one MAC)."""
    tf32_gmacs: Figure | None = None
    """What TensorRT may reach in "FP32" where tensor cores take TF32, which it does unless told otherwise; None where there is none."""
    bandwidth_gb_s: Figure
    """Of the memory the model's tensors live in, 10^9 bytes a second."""
    memory_gib: Figure
    unified_memory: bool
    """Whether CPU and GPU share it: the system's own use then comes off what a model can have."""
    power_modes: tuple[PowerMode, ...] = ()
    idle_or_board_watts: Figure | None = None
    """The power that bounds energy where there are no modes: board power of a GPU, package power of a CPU."""
    runtimes: tuple[RuntimeName, ...] = Field(min_length=1)
    """Best first."""
    tensorrt: tuple[TensorRtGeneration, ...] = ()
    dla_cores: int = Field(0, ge=0)
    """Deep-learning accelerators; they take 2-D tensors only, so a 3-D network is never placed there."""
    refused: dict[str, Refusal] = {}
    """What cannot be done on it, by a short key such as "fp8", "bf16", "dla"."""
    limits: tuple[Text, ...] = ()
    """What an engineer must know before buying or shipping."""
    probed: HostState | None = None
    """What the host was like while `edge-latup targets probe` measured it."""

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if (self.kind == "x86") != (self.isa is not None):
            raise ValueError("isa is stated for x86 targets, and only for them")
        if (self.kind == "x86") == (self.compute_capability is not None):
            raise ValueError("compute_capability is stated for targets with an NVIDIA GPU, and only for them")
        if "fp32" not in self.gmacs:
            raise ValueError("gmacs must state fp32")
        return self


PROFILES: Final = "profiles"


def known_targets() -> tuple[str, ...]:
    """Names of the profiles that come with edge-latup, sorted."""
    folder = resources.files("edge_latup.targets") / PROFILES
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load_profile(target: str) -> Profile:
    """The profile of a known target, or of a TOML file where `target` is a path that ends in ".toml".

    Raises:
        InputError: no such target; the message names the known ones.
        SpecError: the file is not a valid profile; the message names file and key.
    """
    if target.endswith(".toml"):
        return read_profile(Path(target))
    if target not in known_targets():
        raise InputError(f"there is no target {target!r}", f"known targets: {', '.join(known_targets())}; or give a profile file (.toml)")
    with resources.as_file(resources.files("edge_latup.targets") / PROFILES / f"{target}.toml") as path:
        return read_profile(path)


def read_profile(path: Path) -> Profile:
    """One profile from its TOML file.

    Raises:
        SpecError: missing, not TOML, or not a valid profile.
    """
    try:
        data: Mapping[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Profile.model_validate(data)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "give the path of a profile file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}", "correct the file") from error
    except ValidationError as error:
        raise SpecError(f"{path} is not a valid target profile: {summary_of(error)}", "correct the file") from error


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile as the TOML that `read_profile` reads, replacing `path` in one step.

    Raises:
        MissingDependencyError: tomli-w is not installed.
    """
    try:
        import tomli_w
    except ImportError as error:
        raise MissingDependencyError("writing a profile needs tomli-w", install_hint("core")) from error
    data = profile.model_dump(mode="json", exclude_none=True)
    write_text(tomli_w.dumps({key: value for key, value in data.items() if value not in ([], {})}), path)
