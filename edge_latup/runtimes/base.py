"""The contract every runtime keeps."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.manifest import Precision
from edge_latup.runtimes.audit import Audit
from edge_latup.spec import ModelSpec, Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Batch = NDArray[np.float32]
else:
    Batch = Any  # every command knows the runtimes: `--help` must not wait for numpy, whose typing alone takes a tenth of a second


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How to open an artifact.

    threads: CPU threads, 0 for all this process may use.
    float_precision: overrides the manifest's precision of the float part; None keeps it.
    cache_dir: where compiled models are kept between runs; None keeps none (TensorRT's engines: in the user's cache folder).
    input_size: spatial size to compile for, where the runtime can reshape the model; None keeps the model's own.
    profile: time every operation, for `Session.audit`; slows inference down.
    runtime_options: what only one runtime knows, by name; an unknown name is refused.
    """

    threads: int = 0
    float_precision: Precision | None = None
    cache_dir: Path | None = None
    input_size: Size | None = None
    profile: bool = False
    runtime_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def thread_count(self) -> int:
        """The explicit number of threads."""
        return self.threads or usable_cores()


def usable_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One operation as the runtime executes it.

    precision: what it computes in, such as "f32", "bf16", "i8". implementation: the runtime's own kernel name.
    """

    name: str
    operation: str
    precision: str
    implementation: str


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """Name and version of a runtime as installed here."""

    name: str
    version: str
    devices: tuple[str, ...]


class Session(Protocol):
    """An opened artifact; a context manager."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W); -1 where the size is free."""
        ...

    @property
    def float_precision(self) -> str:
        """Precision of the float part as read back from the runtime, not as asked for."""
        ...

    def infer(self, batch: Batch) -> Batch:
        """Class probabilities float32 (N, classes, D, H, W) of float32 (N, C, D, H, W)."""
        ...

    def executed_kernels(self) -> Sequence[Kernel]:
        """What is executed, operation by operation."""
        ...

    def audit(self) -> Audit:
        """Declared precision beside executed kernel of every layer that multiplies; with its time where opened to `profile` and run."""
        ...

    def activation_bytes(self) -> int | None:
        """Most bytes of activations alive at once at the opened size, from the graph that will run; None where it cannot be told."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class RuntimeModule(Protocol):
    """A module that can open artifacts. Importing it is cheap: the runtime itself is imported when first used."""

    def is_available(self) -> bool:
        """Whether the runtime is installed here."""
        ...

    def describe(self) -> RuntimeInfo:
        """Version and devices; imports the runtime."""
        ...

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Load and compile."""
        ...


def installed(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def check_batch(batch: Batch, expected: tuple[int, ...], divisor: int) -> Batch:
    """The batch as contiguous float32.

    Args:
        batch: what the caller gives.
        expected: (N, C, D, H, W); -1 where the size is free.
        divisor: every free spatial size must be a multiple of it.

    Raises:
        InputError: the shape is not what the model takes, or the dtype is not float32.
    """
    import numpy as np

    if batch.dtype == np.float32 and _fits(batch.shape, expected, divisor):
        return np.ascontiguousarray(batch)
    multiples = f" with sizes in multiples of {divisor}" if -1 in expected[2:] else ""
    raise InputError(
        f"the model takes float32 {expected}{multiples}, got {batch.dtype} {batch.shape}",
        "crop or pad to the model's size, or export with --dynamic",
    )


def fixed_shape(shape: tuple[int, ...], spec: ModelSpec) -> tuple[int, ...]:
    """An input shape with the spec's own size where it is free (-1)."""
    return tuple(own if size == -1 else size for size, own in zip(shape, spec.input_shape, strict=True)) if -1 in shape else shape


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], divisor: int) -> bool:
    if len(shape) != len(expected) or min(shape) < 1:
        return False
    same = all(want in (-1, size) for want, size in zip(expected, shape, strict=True))
    return same and all(size % divisor == 0 for want, size in zip(expected[2:], shape[2:], strict=True) if want == -1)


def peak_of_lifetimes(lifetimes: Iterable[tuple[int, int, int]]) -> int:
    """Most bytes alive at once, of tensors given as (made at step, last used at step, bytes)."""
    changes: Counter[int] = Counter()
    for made, last, size in lifetimes:
        changes[made] += size
        changes[last + 1] -= size
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def precision_summary(kernels: Sequence[Kernel]) -> dict[str, int]:
    """How many operations run in each precision."""
    return dict(Counter(kernel.precision for kernel in kernels))
