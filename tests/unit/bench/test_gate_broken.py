"""A candidate broken on purpose never passes the gate; a copy of the reference does. Judged from label maps, not from made-up figures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_latup.bench.drift import case_drifts
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.records import DriftRecord
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case

SHAPE = (24, 24, 24)
QUICK = GateRule(resamples=2000)


def label_map(seed: int) -> np.ndarray:
    """Three nested boxes whose place depends on the seed."""
    label = np.zeros(SHAPE, np.uint8)
    x, y, z = np.random.default_rng(seed).integers(2, 8, 3)
    label[x : x + 12, y : y + 12, z : z + 12] = 2
    label[x + 2 : x + 10, y + 2 : y + 10, z + 2 : z + 10] = 1
    label[x + 3 : x + 9, y + 3 : y + 9, z + 3 : z + 9] = 3
    return label


def broken(kind: str, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "background":
        return np.zeros_like(reference)
    if kind == "noise":
        return rng.integers(0, 4, SHAPE).astype(np.uint8)
    if kind == "specks":
        return np.where((reference == 0) & (rng.random(SHAPE) < 0.003), 3, reference).astype(np.uint8)
    return np.where(reference == 3, 1, reference).astype(np.uint8)  # no enhancing tumour


def judged(kind: str | None, cases: int) -> GateDecision:
    rng = np.random.default_rng(0)
    drifts = []
    for seed in range(cases):
        label = label_map(seed)
        reference = np.where(rng.random(SHAPE) < 0.03, 0, label).astype(np.uint8)
        candidate = reference.copy() if kind is None else broken(kind, reference, rng)
        case = Case(name=f"case-{seed}", images={}, label=label, grid=Grid(shape=SHAPE, affine=np.eye(4)), convention="brats-2023")
        drifts.append(case_drifts(case, "phantom", reference, {"candidate": candidate})["candidate"])
    return judge(
        DriftRecord(
            artifact="int8", artifact_sha256="a", runtime="openvino", executed_float="f32", reference="fp32", reference_sha256="b",
            reference_runtime="openvino", cases=tuple(drifts),
        ),
        QUICK,
    )  # fmt: skip


@pytest.mark.parametrize("cases", [3, 12])
@pytest.mark.parametrize("kind", ["background", "noise", "specks", "no ET"])
def test_a_broken_candidate_is_refused(kind: str, cases: int) -> None:
    found = judged(kind, cases)
    assert not found.accepted
    assert any("ET" in reason or "nothing" in reason for reason in found.reasons)
    if kind == "background":
        assert found.reasons[-1] == "the candidate found nothing in any case, so nothing was tested"
        assert "on phantoms (synthetic), the candidate found nothing at all in case-0" in " ".join(found.reasons)
    if kind == "no ET":
        assert any(reason.startswith("on phantoms (synthetic), the candidate found no ET in case-0") for reason in found.reasons)


@pytest.mark.parametrize("cases", [3, 12])
def test_a_copy_of_the_reference_is_accepted(cases: int) -> None:
    found = judged(None, cases)
    assert found.accepted
    for figures in found.origins[0].regions:
        assert (
            figures.mean_drop == figures.worst.drop == figures.reported.lesionwise_dice_drop == figures.reported.false_positives_more == 0
        )
        assert figures.reported.lesionwise_n == cases


def test_specks_cost_more_lesion_wise_than_in_the_whole() -> None:
    et = judged("specks", 12).origins[0].regions[2]
    assert et.reported.false_positives_more > 12
    assert (et.reported.lesionwise_dice_drop or 0) > 3 * et.mean_drop
    assert (et.reported.lesionwise_hd95_rise_mm or 0) > 100
