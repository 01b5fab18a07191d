"""How a candidate's label maps differ from the reference's and from the label, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.records import CaseDrift, RegionDrift
from edge_latup.cases.identity import CaseOrigin
from edge_latup.cases.labels import to_canonical
from edge_latup.cases.read import Case
from edge_latup.metrics.lesionwise import lesionwise
from edge_latup.metrics.overlap import Mask, dice, iou, region_mask
from edge_latup.metrics.surface import Spacing, hd95, volume_ml
from edge_latup.spec import REGIONS

Labels = NDArray[np.uint8]


def read_prediction(path: Path, case: Case) -> Labels:
    """A label map written by a worker, canonical, on the case's grid."""
    image: Any = nib.load(path)
    return to_canonical(np.asarray(image.dataobj), case.convention, str(path))


def _region(reference: Mask, candidate: Mask, label: Mask | None, spacing: Spacing) -> RegionDrift:
    return RegionDrift(
        dice_reference=None if label is None else dice(reference, label),
        dice_candidate=None if label is None else dice(candidate, label),
        agreement=dice(reference, candidate),
        iou_reference=None if label is None else iou(reference, label),
        iou_candidate=None if label is None else iou(candidate, label),
        hd95_reference_mm=None if label is None else hd95(reference, label, spacing),
        hd95_candidate_mm=None if label is None else hd95(candidate, label, spacing),
        volume_reference_ml=volume_ml(reference, spacing),
        volume_candidate_ml=volume_ml(candidate, spacing),
        lesionwise_reference=None if label is None else lesionwise(reference, label, spacing),
        lesionwise_candidate=None if label is None else lesionwise(candidate, label, spacing),
    )


def case_drift(case: Case, origin: CaseOrigin, reference: Labels, candidate: Labels) -> CaseDrift:
    """Every region of one case; the label counts wherever it is, also outside the crop the network saw."""
    spacing = case.grid.spacing_mm
    regions = {
        region: _region(
            region_mask(reference, region),
            region_mask(candidate, region),
            None if case.label is None else region_mask(case.label, region),
            spacing,
        )
        for region in REGIONS
    }
    return CaseDrift(case=case.name, origin=origin, regions=regions)
