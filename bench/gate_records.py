"""Records of the gate: the rule, fixed before a candidate is measured, and what it found."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from edge_latup.bench.judging import MARGIN
from edge_latup.cases.identity import CaseOrigin
from edge_latup.metrics.statistics import Bootstrap, Method
from edge_latup.records import Record
from edge_latup.spec import REGIONS, Region

Basis = Literal["non-inferiority test", "too few cases for a test", "no labelled case"]
"""What a decision on the cases of one origin rests on."""


class GateRule(Record):
    """What a candidate must hold to be accepted. Margins and limits are this project's choice, but for MLPerf's lines."""

    schema_version: Literal[1] = 1
    margin: dict[Region, float] = Field(default_factory=lambda: dict.fromkeys(REGIONS, MARGIN))
    """Mean Dice drop (reference minus candidate) that must be excluded, by region."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Of the one-sided test, over the three regions together (Holm). Trying many candidates is not corrected for."""
    resamples: int = Field(10_000, ge=1000)
    seed: int = Field(0, ge=0)
    min_cases: int = Field(10, ge=3)
    """Labelled cases of one origin below which there is no test, and the mean drop alone is held against the margin."""
    large_drop: float = Field(0.02, gt=0, lt=1)
    """Dice drop of one case that counts as large."""
    large_drop_share: float = Field(0.05, gt=0, lt=1)
    """Share of the cases that may have a large drop, in each region; rounded down, so none of fewer than 20."""
    worst_drop: float = Field(0.1, gt=0, le=1)
    """Dice drop that no case may exceed in any region: one patient harmed is not made good by a mean."""
    mlperf_lines: tuple[float, ...] = (0.99, 0.999)
    """Shares of the reference's mean Dice that MLPerf Inference asks for; reported, not decided on."""

    @field_validator("margin")
    @classmethod
    def _every_region(cls, margin: dict[Region, float]) -> dict[Region, float]:
        if set(margin) != set(REGIONS) or not all(0 < value < 1 for value in margin.values()):
            raise ValueError(f"margin must hold {', '.join(REGIONS)}, each above 0 and below 1")
        return {region: margin[region] for region in REGIONS}

    @property
    def bootstrap(self) -> Bootstrap:
        """How BCa resamples."""
        return Bootstrap(resamples=self.resamples, seed=self.seed)

    @property
    def small_below(self) -> int:
        """Number of cases below which a warning is shown.

        A harm that strikes the share `large_drop_share` of patients shows in none of n cases with probability (1 - share)^n, and then
        no statistic of those n can see it. From this n on that probability is at most alpha: 59 for the default rule.
        """
        return math.ceil(math.log(self.alpha) / math.log(1 - self.large_drop_share))


class WorstCase(Record):
    """The largest Dice drop of a region, and where it is."""

    drop: float
    case: str


class NonInferiority(Record):
    """The non-inferiority test of one region."""

    upper: dict[Method, float]
    """One-sided upper bound of the mean drop at 1 - alpha, by method."""
    p: dict[Method, float]
    p_holm: float
    """The largest of `p`, after Holm over the regions; the region passes where it is at most alpha."""

    @property
    def bound(self) -> float:
        """The bound that is held against the margin: the largest."""
        return max(self.upper.values())


class ReportedFigures(Record):
    """What is shown of a region and not decided on. A rise or drop that is positive is worse; None where nothing could be averaged."""

    relative: float | None
    """Candidate's mean Dice divided by the reference's."""
    hd95_rise_mm: float | None
    """Mean of candidate minus reference, over the cases where both distances exist."""
    hd95_n: int
    hd95_lost: int
    """Cases in which the reference's HD95 exists and the candidate's does not."""
    volume_bias_ml: float
    """Mean of candidate minus reference."""
    volume_change_ml: float
    """Mean of |candidate minus reference|."""
    lesionwise_n: int
    """Cases with lesion-wise scores: 0 in records made before these were kept."""
    lesionwise_dice_drop: float | None
    lesionwise_hd95_rise_mm: float | None
    missed_more: int
    """Lesions of the label missed by the candidate minus those missed by the reference, over all cases."""
    false_positives_more: int
    """The same of finds that are near no lesion."""


class RegionFigures(Record):
    """One region on the labelled cases of one origin."""

    region: Region
    cases: int
    dice_reference: float
    dice_candidate: float
    mean_drop: float
    """Reference minus candidate: positive is worse."""
    test: NonInferiority | None
    """None where there are too few cases."""
    worst: WorstCase
    large_drops: int
    """Cases that lose more than the rule's `large_drop`."""
    reported: ReportedFigures
    reasons: tuple[str, ...] = ()
    """What of the rule it breaks."""


class Agreement(Record):
    """Dice of the candidate's output with the reference's, on cases without a label. Reported, not decided on."""

    region: Region
    cases: int
    mean: float
    lowest: float


class OriginFinding(Record):
    """The gate on the cases of one origin; origins are never mixed."""

    origin: CaseOrigin
    cases: int
    labelled: int
    basis: Basis
    regions: tuple[RegionFigures, ...]
    """Empty without a labelled case."""
    relative: float | None
    """Mean Dice over regions and cases, candidate divided by reference: what MLPerf's lines are drawn for."""
    agreement: tuple[Agreement, ...]
    """Empty where every case has a label."""
    emptied: tuple[str, ...]
    """Where the candidate found nothing and the reference found something."""
    reasons: tuple[str, ...]
    """Why the candidate is refused; empty where it is not."""
    warnings: tuple[str, ...]


class GateDecision(Record):
    """Accepted or refused, and every figure behind it."""

    schema_version: Literal[1] = 1
    candidate: str
    candidate_sha256: str
    candidate_spec_sha256: str | None = None
    """As in the drift that was judged."""
    reference: str
    reference_sha256: str
    accepted: bool
    tested: bool
    """Whether a test, not the mean drop alone, stands behind the decision on every origin that has labelled cases."""
    reasons: tuple[str, ...]
    """Why it is refused; empty where it is accepted."""
    warnings: tuple[str, ...]
    origins: tuple[OriginFinding, ...]
    rule: GateRule
