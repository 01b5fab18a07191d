"""How a candidate's label maps differ from the reference's and from the label, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.records import CaseDrift, RegionDrift
from edge_latup.cases.identity import CaseOrigin
from edge_latup.cases.labels import to_canonical
from edge_latup.cases.read import Case
from edge_latup.metrics.lesionwise import LesionScores, lesionwise
from edge_latup.metrics.overlap import Mask, dice, iou, region_mask, sensitivity, specificity
from edge_latup.metrics.surface import Spacing, hd95, volume_ml
from edge_latup.runtimes.base import usable_cores
from edge_latup.spec import REGIONS, Region

Labels = NDArray[np.uint8]


def read_prediction(path: Path, case: Case) -> Labels:
    """A label map written by a worker, canonical, on the case's grid."""
    image: Any = nib.load(path)
    return to_canonical(np.asarray(image.dataobj), case.convention, str(path))


@dataclass(frozen=True, kw_only=True)
class _AgainstLabel:
    """One region of one output against the label; all None where there is none."""

    dice: float | None = None
    iou: float | None = None
    hd95_mm: float | None = None
    lesionwise: LesionScores | None = None
    sensitivity: float | None = None
    specificity: float | None = None


def _against(output: Mask, label: Mask | None, spacing: Spacing) -> _AgainstLabel:
    if label is None:
        return _AgainstLabel()
    return _AgainstLabel(
        dice=dice(output, label),
        iou=iou(output, label),
        hd95_mm=hd95(output, label, spacing),
        lesionwise=lesionwise(output, label, spacing),
        sensitivity=sensitivity(output, label),
        specificity=specificity(output, label),
    )


def _scores(case: Case, output: Labels, regions: Sequence[Region]) -> dict[Region, _AgainstLabel]:
    label, spacing = case.label, case.grid.spacing_mm
    return {
        region: _against(region_mask(output, region), None if label is None else region_mask(label, region), spacing) for region in regions
    }  # fmt: skip


def _drift(reference: Mask, candidate: Mask, own: tuple[_AgainstLabel, _AgainstLabel], spacing: Spacing) -> RegionDrift:
    """Of one region; `own` is how the reference and the candidate agree with the label."""
    first, second = own
    return RegionDrift(
        dice_reference=first.dice, dice_candidate=second.dice, agreement=dice(reference, candidate),
        iou_reference=first.iou, iou_candidate=second.iou,
        hd95_reference_mm=first.hd95_mm, hd95_candidate_mm=second.hd95_mm,
        volume_reference_ml=volume_ml(reference, spacing), volume_candidate_ml=volume_ml(candidate, spacing),
        lesionwise_reference=first.lesionwise, lesionwise_candidate=second.lesionwise,
        sensitivity_reference=first.sensitivity, sensitivity_candidate=second.sensitivity,
        specificity_reference=first.specificity, specificity_candidate=second.specificity,
    )  # fmt: skip


def case_drifts(
    case: Case, origin: CaseOrigin, reference: Labels, candidates: dict[str, Labels], regions: Sequence[Region] = tuple(REGIONS)
) -> dict[str, CaseDrift]:
    """These regions of one case for each candidate, by name; the label counts wherever it is, also outside the crop the network saw."""
    spacing = case.grid.spacing_mm
    # The reference's distances to the label take as long as a candidate's: they are measured once. Most of it is distance transforms
    # outside Python's lock, so that threads share the processors.
    with ThreadPoolExecutor(usable_cores()) as pool:
        yardstick, *own = pool.map(lambda output: _scores(case, output, regions), (reference, *candidates.values()))
    found = {}
    for (name, candidate), scores in zip(candidates.items(), own, strict=True):
        drifts = {
            region: _drift(region_mask(reference, region), region_mask(candidate, region), (yardstick[region], scores[region]), spacing)
            for region in regions
        }
        found[name] = CaseDrift(case=case.name, origin=origin, regions=drifts)
    return found
