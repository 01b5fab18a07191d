"""The two real BraTS cases: found, read, and exactly what their source says they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import tree

from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.spec import MODALITIES

COUNTS = {"BraTS-GLI-00000-000": [11738, 12836, 32731], "BraTS-GLI-00001-000": [17878, 88029, 23327]}
"""Voxels of necrotic core, oedema and enhancing tumour; the second case's label is a pseudo-label."""


def test_both_are_found_with_all_modalities_and_a_label(real_cases: Path) -> None:
    found = find_cases(real_cases)
    assert [files.name for files in found] == list(COUNTS)
    assert all(set(files.images) == set(MODALITIES) and files.label is not None for files in found)


@pytest.mark.parametrize("name", COUNTS)
def test_each_reads_as_its_source_describes_it_and_is_left_as_it_was(real_cases: Path, name: str) -> None:
    before = tree(real_cases / name)
    (files,) = find_cases(real_cases / name)
    case = read_case(files, ("flair", "t1ce", "t2"))
    assert case.label is not None
    assert np.bincount(case.label.ravel(), minlength=4)[1:].tolist() == COUNTS[name]
    assert case.convention == "brats-2023"
    assert case.grid.shape == (240, 240, 155)
    assert case.grid.orientation == "LPS"
    assert case.grid.spacing_mm == pytest.approx((1, 1, 1))
    np.testing.assert_allclose(case.grid.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert tree(real_cases / name) == before
