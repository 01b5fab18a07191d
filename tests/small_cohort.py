"""A folder of small cases that differ from each other, and what a cohort's output folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from support import NAMES_2021, SHAPE, intensities, write_nifti

NAMES: Final = tuple(f"case-{letter}" for letter in "abcdef")


def write_small_cohort(folder: Path, names: tuple[str, ...] = NAMES, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write unlabelled cases of three modalities with the 2021 names; no two volumes hold the same voxels."""
    for index, name in enumerate(names):
        for channel, modality in enumerate(("flair", "t1ce", "t2")):
            write_nifti(folder / name / f"{name}{NAMES_2021[modality]}.nii.gz", intensities(10 * index + channel, shape))
    return folder


def image_of(cases: Path, name: str, modality: str = "t2") -> Path:
    """One image file of a case."""
    return cases / name / f"{name}{NAMES_2021[modality]}.nii.gz"


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, the hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def expected_names(names: tuple[str, ...] = NAMES) -> list[str]:
    """The files of a finished cohort, and no other."""
    return sorted([f"{name}.nii.gz" for name in names] + [f"{name}.json" for name in names])
