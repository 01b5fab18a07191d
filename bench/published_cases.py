"""Published latencies of 3-D segmentation networks on GPUs: the outside check, and all that a prediction for a GPU can lean on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edge_latup.bench.published_networks import latup_net, nnunet
from edge_latup.manifest import Precision
from edge_latup.records import Record
from edge_latup.targets.profile import load_profile
from edge_latup.targets.roofline import Operation, bound_of, machine_of

MLPERF: Final = "https://github.com/mlcommons/inference_results_{}, closed division, 3d-unet-99, SingleStream, NVIDIA"
CHECKED_WITHIN: Final = 0.35


@dataclass(frozen=True, kw_only=True)
class PublishedCase:
    """One published latency. network: makes the operations of an input shape in a precision."""

    name: str
    target: str
    network: Callable[[tuple[int, ...], Precision], list[Operation]]
    input_shape: tuple[int, ...]
    precision: Precision
    milliseconds: float
    source: str
    caution: str = ""

    @property
    def bound_ms(self) -> float:
        """Of its own profile."""
        return 1000 * bound_of(self.network(self.input_shape, self.precision), machine_of(load_profile(self.target)))

    @property
    def efficiency(self) -> float:
        """Bound over published latency: how much of the roofline was reached."""
        return self.bound_ms / self.milliseconds


BRATS19: Final = (1, 4, 224, 224, 160)
CAUTION: Final = "channels as nnU-Net's defaults give them; the checkpoint itself was not opened"
BOARD_CAUTION: Final = f"{CAUTION}; run with JetPack 4.6 in a power mode that the submission does not name: the fastest is taken"
CASES: Final = (
    PublishedCase(
        name="LATUP-Net on RTX 3060, FP32", target="rtx-3060-12gb", network=latup_net, input_shape=(1, 3, 128, 128, 128), precision="fp32",
        milliseconds=168, source="Alwadee et al. 2025, Table 5, doi 10.1016/j.compbiomed.2024.109353",
        caution="stated once; precision and clocks are not stated, and a smaller variant in the same table is slower",
    ),
    PublishedCase(
        name="MLPerf BraTS 3-D U-Net on Jetson AGX Xavier, INT8", target="jetson-agx-xavier", network=nnunet, input_shape=BRATS19,
        precision="int8", milliseconds=374, source=MLPERF.format("v1.1"), caution=BOARD_CAUTION,
    ),
    PublishedCase(
        name="MLPerf BraTS 3-D U-Net on Jetson Xavier NX, INT8", target="jetson-xavier-nx", network=nnunet, input_shape=BRATS19,
        precision="int8", milliseconds=627, source=MLPERF.format("v1.1"), caution=BOARD_CAUTION,
    ),
    PublishedCase(
        name="MLPerf BraTS 3-D U-Net on T4, INT8", target="tesla-t4", network=nnunet, input_shape=BRATS19, precision="int8",
        milliseconds=153, source=MLPERF.format("v1.0"), caution=f"{CAUTION}; a 70 W card that throttles",
    ),
)  # fmt: skip


class PublishedCheck(Record):
    """A published figure beside what would have been predicted for it from the other published figures."""

    label: Literal["predicted"] = "predicted"
    name: str
    target: str
    precision: Precision
    published_ms: float
    source: str
    caution: str
    macs: int
    bound_ms: float
    likely_ms: float
    likely_range_ms: tuple[float, float]
    ratio: float
    """Likely over published."""
    bound_holds: bool
    within: bool
    """Whether the likely value is within 35 % of the published one."""


def likely_from(bound_ms: float, cases: Sequence[PublishedCase] = CASES) -> tuple[float, tuple[float, float]]:
    """(likely, (fast end, slow end)) in ms: the bound divided by the median, the best and the worst efficiency of published cases."""
    efficiencies = [case.efficiency for case in cases]
    return bound_ms / statistics.median(efficiencies), (bound_ms / max(efficiencies), bound_ms / min(efficiencies))


def check_published() -> list[PublishedCheck]:
    """Every published figure against a prediction that has not seen it: leave one out."""
    return [_check(case) for case in CASES]


def _check(case: PublishedCase) -> PublishedCheck:
    likely, span = likely_from(case.bound_ms, [other for other in CASES if other is not case])
    ratio = likely / case.milliseconds
    return PublishedCheck(
        name=case.name, target=case.target, precision=case.precision, published_ms=case.milliseconds, source=case.source,
        caution=case.caution, macs=sum(operation.macs for operation in case.network(case.input_shape, case.precision)),
        bound_ms=case.bound_ms, likely_ms=likely, likely_range_ms=span, ratio=ratio, bound_holds=case.bound_ms <= case.milliseconds,
        within=abs(ratio - 1) <= CHECKED_WITHIN,
    )  # fmt: skip
