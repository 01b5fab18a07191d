"""Memory: what this process takes, what a case will take, and the policy that fits a budget."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.errors import InputError
from edge_latup.spec import ModelSpec, Size, SlidingWindow, Spatial

STATUS: Final = Path("/proc/self/status")
FLOAT32: Final = 4
SMALLER_WINDOWS: Final = (128, 96, 64, 48, 32)
"""Windows that are tried, largest first, when the declared policy does not fit a budget."""
RUNTIME_WORKING: Final = 64 << 20
"""What OpenVINO takes at its first inference besides activations: kernels made for this CPU, weights in their layout, scratch.
With it the peaks of tests/integration/test_memory.py are forecast within 15 %."""
UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def process_bytes(field: str) -> int:
    """A line of /proc/self/status in bytes, such as VmRSS (resident now) or VmHWM (most so far); 0 where the system has none."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def parse_bytes(text: str) -> int:
    """Bytes of a text such as "2GiB", "900 MB" or "1500000".

    Raises:
        InputError: it is not a positive number with a known unit.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if found is None or found[2].lower() not in units or not float(found[1]):
        raise InputError(f"{text!r} is not an amount of memory", "write for example 2GiB, 900MiB or 1.5GB")
    return int(float(found[1]) * units[found[2].lower()])


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predicted bytes of one case, by what takes them; `total` is the predicted peak RSS of the process.

    process: resident once the case is read and the model is loaded, before anything is inferred.
    activations: most of the network's activations alive at once, from the graph the runtime will execute.
    working: kernels, weights in their layout and scratch.
    arrays: the input batch, the output and the label decision around them.
    blending: the slabs of the volume that a sliding window's average is held in.
    earlier: the most this process took until then, such as while reading.
    """

    process: int
    activations: int
    working: int
    arrays: int
    blending: int
    earlier: int

    @property
    def total(self) -> int:
        """Predicted peak RSS in bytes."""
        return max(self.earlier, self.process + self.activations + self.working + self.arrays + self.blending)


@dataclass(frozen=True, kw_only=True)
class Resident:
    """What a process held before it inferred anything, in bytes: resident, and the most until then."""

    now: int
    earlier: int

    @classmethod
    def measured(cls) -> Resident:
        """This process at this moment."""
        return cls(now=process_bytes("VmRSS"), earlier=process_bytes("VmHWM"))


def forecast(spec: ModelSpec, size: Size, shape: Size, activations: int, before: Resident | None = None) -> Forecast:
    """Predict the peak of inferring one case, from what this process held before its first.

    Args:
        spec: policy, views and classes.
        size: spatial size of the network's input.
        shape: of the volume in the spec's orientation.
        activations: `Session.activation_bytes()` at `size`.
        before: measured before the first inference, of which a runtime keeps the memory for the next; now unless given.
    """
    before = before or Resident.measured()
    voxels, classes = math.prod(size), spec.channels
    # The batch; the runtime's output copied out of it, for every view; class indices (int64) while the label is decided.
    arrays = FLOAT32 * voxels * (len(spec.modalities) + classes * len(spec.views)) + 8 * voxels
    blending = 0
    if isinstance(spec.spatial, SlidingWindow):
        plane = shape[1] * shape[2]
        depth = min(size[0], shape[0])
        # One buffer of sums and one of weights for each view; at a slab's end its mean, weights and class indices too.
        blending = plane * depth * (FLOAT32 * (classes + 1) * (len(spec.views) + 1) + 8)
    return Forecast(
        process=before.now, activations=activations, working=RUNTIME_WORKING, arrays=arrays, blending=blending, earlier=before.earlier,
    )  # fmt: skip


def smaller_policies(declared: Spatial, divisor: int) -> Iterator[Spatial]:
    """The declared policy, then sliding windows of shrinking size: what is tried against a memory budget, in this order."""
    yield declared
    overlap = declared if isinstance(declared, SlidingWindow) else SlidingWindow(blending="gaussian")
    for side in SMALLER_WINDOWS:
        if side % divisor == 0 and (not isinstance(declared, SlidingWindow) or side < min(declared.size)):
            yield overlap.model_copy(update={"size": (side, side, side)})


def in_gib(amount: int) -> str:
    """Bytes as a text in GiB."""
    return f"{amount / (1 << 30):.2f} GiB"
