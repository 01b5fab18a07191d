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


class Fingerprint(Record):
    """Everything that decides which kernels run."""

    cpu: str
    isa: tuple[str, ...]
    cores: int
    gpu_driver: str
    """NVIDIA's version, "none" without one."""
    python: str
    packages: dict[str, str]

    def changes(self, other: Fingerprint) -> list[str]:
        """What differs in `other`, in words; empty where nothing does."""
        mine, theirs = self.model_dump(exclude={"packages"}), other.model_dump(exclude={"packages"})
        mine, theirs = mine | self.packages, theirs | other.packages
        return [
            f"{name}: {mine.get(name)} is now {theirs.get(name)}" for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)
        ]


def fingerprint(driver: Path = DRIVER) -> Fingerprint:
    """Of this process's machine and installation."""
    host = describe_host()
    packages = {name: version_of(name) for name in ("edge-latup", "numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt")}
    return Fingerprint(
        cpu=host.cpu, isa=host.isa, cores=usable_cores(), gpu_driver=_driver(driver), python=platform.python_version(), packages=packages
    )  # fmt: skip


def _driver(path: Path) -> str:
    try:
        found = re.search(r"(\d+\.\d+(?:\.\d+)?)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return "none"
    return found[1] if found else "unknown"
