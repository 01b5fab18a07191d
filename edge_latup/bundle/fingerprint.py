"""What a self-test holds for: the CPU, the driver and the runtimes it ran on. When one changes, it is run again."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from edge_latup.records import Record
from edge_latup.runtimes.base import usable_cores
from edge_latup.targets.host import describe_host
from edge_latup.versions import version_of

DRIVER = Path("/proc/driver/nvidia/version")
GPUS = Path("/proc/driver/nvidia/gpus")
"""A folder for each GPU, on desktops; boards such as Jetson have none."""


class Fingerprint(Record):
    """Everything that decides which kernels run."""

    cpu: str
    isa: tuple[str, ...]
    cores: int
    gpu_driver: str
    """NVIDIA's version, "none" without one."""
    gpus: tuple[str, ...] = ()
    """Models, as NVIDIA's driver names them."""
    python: str
    packages: dict[str, str]

    def changes(self, other: Fingerprint) -> list[str]:
        """What differs in `other`, in words; empty where nothing does."""
        mine, theirs = self.model_dump(exclude={"packages"}), other.model_dump(exclude={"packages"})
        mine, theirs = mine | self.packages, theirs | other.packages
        return [
            f"{name}: {mine.get(name)} is now {theirs.get(name)}" for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)
        ]


def fingerprint(driver: Path = DRIVER, gpus: Path = GPUS) -> Fingerprint:
    """Of this process's machine and installation."""
    host = describe_host()
    packages = {name: version_of(name) for name in ("edge-latup", "numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt")}
    return Fingerprint(
        cpu=host.cpu, isa=host.isa, cores=usable_cores(), gpu_driver=_driver(driver), gpus=_models(gpus),
        python=platform.python_version(), packages=packages,
    )  # fmt: skip


def _driver(path: Path) -> str:
    if not path.is_file():
        return "none"
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", _read(path))
    return found[1] if found else "unknown"


def _models(folder: Path) -> tuple[str, ...]:
    told = (re.search(r"^Model:\s*(.+?)\s*$", _read(path), re.MULTILINE) for path in sorted(folder.glob("*/information")))
    return tuple(found[1] for found in told if found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
