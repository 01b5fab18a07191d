"""The roofline: how long an operation takes at least on a machine that never misses its peak rate or its bandwidth.

Source of the model: Williams, Waterman, Patterson, Commun. ACM 52 (2009) 65, doi 10.1145/1498765.1498785. Pure arithmetic: nothing here
looks at a file or at the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edge_latup.errors import InputError
from edge_latup.manifest import Precision
from edge_latup.targets.profile import PowerMode, Profile, TargetKind

OperationKind = Literal[
    "convolution", "transposed convolution", "dense", "norm", "reduction", "pooling", "resampling", "concatenation", "elementwise",
    "softmax",
]  # fmt: skip
MULTIPLYING: Final[tuple[OperationKind, ...]] = ("convolution", "transposed convolution", "dense")
CACHED_BYTES: Final[dict[TargetKind, int]] = {"x86": 64 << 20, "gpu": 64 << 20, "jetson": 4 << 20}
"""Tensors up to this size may stay in a cache, so the bound charges no memory traffic for them. Profiles state no caches: these are
larger than those of the targets that come with edge-latup, which can only make a bound lower."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation as a runtime executes it, with what is fused into it.

    macs: as every tool counts them. needed_macs: without products with zero padding, which a kernel may skip.
    kernel: longest side of the kernel. channels: (in, out). voxels: spatial elements of the output (of the input where transposed).
    reads: bytes of each tensor it reads. writes: bytes it leaves.
    """

    name: str
    kind: OperationKind
    precision: Precision
    macs: int = 0
    needed_macs: int = 0
    kernel: int = 1
    channels: tuple[int, int] = (1, 1)
    voxels: int = 1
    reads: tuple[int, ...] = ()
    writes: int = 0
    weight_bytes: int = 0

    @property
    def bytes_moved(self) -> int:
        """Every tensor read or written once, and the weights."""
        return sum(self.reads) + self.writes + self.weight_bytes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Peak rates. gmacs: 10^9 multiply-accumulates a second; bandwidth_gb_s: 10^9 bytes a second."""

    gmacs: Mapping[Precision, float]
    bandwidth_gb_s: float
    cached_bytes: int = 0

    def rate(self, precision: Precision) -> float:
        """Peak of a precision in MAC/s.

        Raises:
            InputError: the machine has none.
        """
        if precision not in self.gmacs:
            raise InputError(f"no peak rate is known for {precision}", f"rates are known for: {', '.join(self.gmacs)}")
        return self.gmacs[precision] * 1e9


def machine_of(profile: Profile, threads: int | None = None, mode: PowerMode | None = None) -> Machine:
    """A profile as a machine: with `threads` of its cores where fewer than all, in a power mode where one is named.

    FP32 counts as TF32 where tensor cores take that, because TensorRT uses it unless told otherwise, and a bound must hold then too.
    """
    gmacs = {precision: figure.value for precision, figure in profile.gmacs.items()}
    if profile.tf32_gmacs is not None:
        gmacs["fp32"] = max(gmacs["fp32"], profile.tf32_gmacs.value)
    share = 1.0
    if threads is not None and profile.cores is not None and profile.kind == "x86":
        share = min(1.0, threads / profile.cores)
    bandwidth = profile.bandwidth_gb_s.value
    if mode is not None:
        share *= mode.gpu_share.value if mode.gpu_share is not None else 1.0
        bandwidth = mode.bandwidth_gb_s.value if mode.bandwidth_gb_s is not None else bandwidth
    scaled = {precision: rate * share for precision, rate in gmacs.items()}
    return Machine(gmacs=scaled, bandwidth_gb_s=bandwidth, cached_bytes=CACHED_BYTES[profile.kind])


def bound_seconds(operation: Operation, machine: Machine) -> float:
    """The least time of one operation: the larger of arithmetic at the peak and traffic at the bandwidth.

    Only what multiplies is charged. Norms, pooling, concatenation and the like cost nothing here, since a runtime may fuse each into a
    neighbour or do it in place; nor does a tensor that fits into the cache.
    """
    if operation.kind not in MULTIPLYING:
        return 0.0
    moved = sum(size for size in (*operation.reads, operation.writes, operation.weight_bytes) if size > machine.cached_bytes)
    return max(operation.needed_macs / machine.rate(operation.precision), moved / (machine.bandwidth_gb_s * 1e9))


def bound_of(operations: Iterable[Operation], machine: Machine) -> float:
    """Seconds of all operations one after the other."""
    return sum(bound_seconds(operation, machine) for operation in operations)


def inside_share(read: int, written: int, kernel: int, stride: int, dilation: int, pad: int) -> float:
    """Share of a convolution's taps along one axis that fall on data and not on padding.

    Args:
        read: elements that taps may fall on. written: positions of the kernel.
        kernel, stride, dilation, pad: of this axis; `pad` is that at its beginning.
    """
    inside = sum(0 <= at * stride + tap * dilation - pad < read for at in range(written) for tap in range(kernel))
    return inside / (written * kernel)
