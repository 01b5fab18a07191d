"""Which exam a case is, whatever it is called, and what kind: a phantom, a real one, a real one with a pseudo-label."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import numpy as np

from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.read import Case

CaseOrigin = Literal["phantom", "real", "real, pseudo-label"]

PHANTOM_MARK: Final = b"edge-latup phantom"
"""In the NIfTI description field of every phantom, so that no copy of one passes for a patient."""
PSEUDO_LABELLED: Final = ("BraTS-GLI-00001-000",)
"""Public sample cases whose published label is an algorithm's output (arXiv 2402.17317), not an expert's."""


def case_digest(case: Case) -> str:
    """SHA-256 of the voxels of the modalities that were read, by modality name: a renamed or moved copy has the same digest."""
    digest = hashlib.sha256()
    for modality in sorted(case.images):
        digest.update(modality.encode())
        digest.update(np.ascontiguousarray(case.images[modality]).tobytes())
    return digest.hexdigest()


def origin_of(files: CaseFiles) -> CaseOrigin:
    """Phantom by the mark in its header; a real case's label is an expert's unless the case is known to have a pseudo-label.

    Raises:
        CaseError: the case's first file cannot be read.
    """
    if open_volume(files.first_file).image.header["descrip"].tobytes().startswith(PHANTOM_MARK):
        return "phantom"
    return "real, pseudo-label" if files.name in PSEUDO_LABELLED else "real"
