"""Identity: a case is known by its voxels and its kind by its header, whatever it is called and wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from support import NAMES_2021, NAMES_2023, intensities, write_case, write_nifti

from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.identity import case_digest, origin_of
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError


def digest_of(folder: Path) -> str:
    (files,) = find_cases(folder)
    return case_digest(read_case(files, ("flair", "t1ce")))


def test_a_copy_under_another_name_has_the_same_digest(tmp_path: Path) -> None:
    first = digest_of(write_case(tmp_path / "a", NAMES_2021))
    assert digest_of(write_case(tmp_path / "b", NAMES_2023, suffix=".nii")) == first
    assert len(first) == 64


def test_one_other_voxel_gives_another_digest(tmp_path: Path) -> None:
    first = digest_of(write_case(tmp_path / "a"))
    changed = intensities(1)
    changed[3, 4, 5] += 1
    write_nifti(tmp_path / "a" / "a_t1ce.nii.gz", changed)
    assert digest_of(tmp_path / "a") != first


def test_the_digest_does_not_depend_on_the_order_of_reading(tmp_path: Path) -> None:
    (files,) = find_cases(write_case(tmp_path / "a"))
    assert case_digest(read_case(files, ("flair", "t2"))) == case_digest(read_case(files, ("t2", "flair")))


def test_a_phantom_is_a_phantom_under_any_name(tmp_path: Path) -> None:
    (files,) = write_cohort(tmp_path / "cohort", cases=1, seed=0, shape=(16, 16, 16))
    assert origin_of(files) == "phantom"
    shutil.copytree(files.folder, tmp_path / "copies" / "patient-17")
    assert origin_of(find_cases(tmp_path / "copies")[0]) == "phantom"


@pytest.mark.parametrize(("name", "origin"), [("BraTS-GLI-00000-000", "real"), ("BraTS-GLI-00001-000", "real, pseudo-label")])
def test_a_case_that_is_no_phantom_is_real_and_a_known_pseudo_label_is_said(tmp_path: Path, name: str, origin: str) -> None:
    assert origin_of(find_cases(write_case(tmp_path / name))[0]) == origin


def test_a_4d_file_is_real(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "exam.nii", np.stack([intensities(seed) for seed in range(4)], axis=-1))
    assert origin_of(find_cases(path)[0]) == "real"


def test_a_metaimage_is_real(tmp_path: Path) -> None:
    """No phantom is written in that format."""
    path = write_nifti(tmp_path / "a" / "a_flair.nii", intensities(0))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path.with_suffix(".mha")))
    path.unlink()
    assert origin_of(find_cases(tmp_path)[0]) == "real"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a")
    (folder / "a_flair.nii.gz").write_bytes(b"damaged")
    with pytest.raises(CaseError, match=r"a_flair\.nii\.gz is not a NIfTI file"):
        origin_of(find_cases(folder)[0])


def test_the_two_real_cases_are_told_apart(real_cases: Path) -> None:
    assert [origin_of(files) for files in find_cases(real_cases)] == ["real", "real, pseudo-label"]
