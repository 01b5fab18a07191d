"""Rates of operation classes: what convolutions, norms and moves of typical shapes reach on a CPU, and what others will by comparison.

A likely latency is the sum of what each operation takes at the rate of the measured operation that is most like it. Measured by
`class_measure` on operations of their own, never by timing the network that is to be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Final, Literal

from pydantic import Field

from edge_latup.manifest import Precision
from edge_latup.records import Record, read_record
from edge_latup.targets.host import Host
from edge_latup.targets.isa import IsaName
from edge_latup.targets.roofline import MULTIPLYING, Machine, Operation, OperationKind

FOLDER: Final = "class_rates"


class ClassRate(Record):
    """One measured operation."""

    kind: OperationKind
    precision: Precision
    """That it was executed in."""
    kernel: int = Field(ge=1)
    channels: tuple[int, int]
    voxels: int = Field(ge=1)
    macs: int = Field(ge=0)
    bytes_moved: int = Field(ge=1)
    implementation: str
    """The runtime's own name of its kernel."""
    microseconds: tuple[float, ...] = Field(min_length=1)
    """Of each run, from the runtime's own profile."""

    @property
    def seconds(self) -> float:
        """Median."""
        ordered, middle = sorted(self.microseconds), len(self.microseconds) // 2
        return (ordered[middle] + ordered[-1 - middle]) / 2e6

    @property
    def best_seconds(self) -> float:
        """Shortest."""
        return min(self.microseconds) / 1e6


class ClassRates(Record):
    """All that was measured in one process under one instruction set."""

    schema_version: Literal[1] = 1
    label: Literal["measured"] = "measured"
    isa: IsaName
    emulated: bool
    """Kernels are then those of the set; clock, caches and memory are the host's."""
    threads: int = Field(ge=1)
    host: Host
    runtime_version: str
    started: str
    """UTC, ISO 8601."""
    load_average: float
    """When the measurement began: above the thread count, the figures are disturbed."""
    bandwidth_gb_s: float = Field(gt=0)
    """Of a copy that no cache holds, the destination counted twice because it may be read before it is written; best run."""
    cached_bytes: int = Field(ge=0)
    """Last-level cache."""
    rates: tuple[ClassRate, ...] = Field(min_length=1)

    @property
    def machine(self) -> Machine:
        """The host held to this instruction set: the best rate that any convolution reached in any run is the peak."""
        gmacs: dict[Precision, float] = {}
        for rate in (rate for rate in self.rates if rate.macs):
            gmacs[rate.precision] = max(gmacs.get(rate.precision, 0.0), rate.macs / rate.best_seconds / 1e9)
        return Machine(gmacs=gmacs, bandwidth_gb_s=self.bandwidth_gb_s, cached_bytes=self.cached_bytes)


def likely_seconds(operation: Operation, rates: ClassRates, target: Machine | None = None) -> float:
    """What an operation probably takes: its work at the rate of the measured operation most like it.

    Args:
        operation: of the graph.
        rates: of a host with the target's instruction set.
        target: rates are scaled by the ratio of its peaks to those of the measured host; None where it is that host.
    """
    if operation.kind in MULTIPLYING:
        twin = _twin(operation, rates.rates)
        scale = 1.0 if target is None else target.rate(operation.precision) / rates.machine.rate(twin.precision)
        return operation.macs * twin.seconds / twin.macs / scale
    scale = 1.0 if target is None else target.bandwidth_gb_s / rates.bandwidth_gb_s
    return operation.bytes_moved / _bytes_a_second(operation, rates.rates) / scale


def _twin(operation: Operation, rates: Sequence[ClassRate]) -> ClassRate:
    """The measured operation that is nearest in kind, precision, kernel, channels and volume, each as a ratio."""
    return min((rate for rate in rates if rate.macs), key=lambda rate: _distance(operation, rate))


def _distance(operation: Operation, rate: ClassRate) -> tuple[bool, bool, float]:
    shape = (
        2 * abs(math.log2(operation.kernel / rate.kernel)),
        *(abs(math.log2(mine / other)) for mine, other in zip(operation.channels, rate.channels, strict=True)),
        # A kernel's rate hangs on its channels; the volume matters where threads or caches do.
        abs(math.log2(operation.voxels / rate.voxels)) / 6,
    )
    return operation.precision != rate.precision, operation.kind != rate.kind, sum(shape)


def _bytes_a_second(operation: Operation, rates: Sequence[ClassRate]) -> float:
    """Interpolated between the measured sizes of the same kind, in logarithms; constant beyond the smallest and the largest."""
    moves = [rate for rate in rates if not rate.macs]
    kind = [rate for rate in moves if rate.kind == operation.kind] or moves
    same = sorted((rate for rate in kind if rate.precision == operation.precision), key=_size) or sorted(kind, key=_size)
    below = [rate for rate in same if rate.bytes_moved <= operation.bytes_moved][-1:]
    above = [rate for rate in same if rate.bytes_moved > operation.bytes_moved][:1]
    if not below or not above:
        return _speed((below or above)[0])
    low, high = below[0], above[0]
    at = math.log(operation.bytes_moved / low.bytes_moved) / math.log(high.bytes_moved / low.bytes_moved)
    return math.exp((1 - at) * math.log(_speed(low)) + at * math.log(_speed(high)))


def _size(rate: ClassRate) -> int:
    return rate.bytes_moved


def _speed(rate: ClassRate) -> float:
    return rate.bytes_moved / rate.seconds


def shipped_rates(isa: IsaName) -> ClassRates | None:
    """The class rates of an instruction set that come with edge-latup, measured as they say; None where there are none."""
    with resources.as_file(resources.files("edge_latup.targets") / FOLDER / f"{isa}.json") as path:
        return read_record(ClassRates, path) if path.is_file() else None
