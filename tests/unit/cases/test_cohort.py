"""Cohorts on disk: BraTS 2023 folders that read back, made once, kept when whole, made again when not."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import die, tree

from edge_latup.cases import cohort
from edge_latup.cases.cohort import WHITE_MATTER_INTENSITY, brats_grid, write_cohort
from edge_latup.cases.layout import find_cases
from edge_latup.cases.phantom import make_phantom
from edge_latup.cases.read import read_case
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.spec import MODALITIES

SHAPE = (20, 18, 16)


def test_a_cohort_is_brats_2023_folders_that_read_back(tmp_path: Path) -> None:
    written = list(write_cohort(tmp_path / "cohort", cases=2, seed=5, shape=SHAPE))
    assert written == find_cases(tmp_path / "cohort")
    assert [files.name for files in written] == ["phantom-0005-0000", "phantom-0005-0001"]
    for index, files in enumerate(written):
        case, phantom = read_case(files, MODALITIES), make_phantom(5, index, shape=SHAPE)
        for modality in MODALITIES:
            np.testing.assert_allclose(case.images[modality], phantom.images[modality] * WHITE_MATTER_INTENSITY, atol=0.5)
        np.testing.assert_array_equal(case.label, phantom.label)
        assert case.convention == "brats-2023"
        assert case.grid.orientation == "LPS"
        assert nib.load(files.first_file).get_data_dtype() == np.int16


def test_the_grid_is_that_of_brats() -> None:
    grid = brats_grid((240, 240, 155))
    np.testing.assert_array_equal(grid.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        list(write_cohort(tmp_path / name, cases=1, seed=5, shape=SHAPE))
    first, second = ({path: content for path, (_, content) in tree(folder).items()} for folder in (tmp_path / "first", tmp_path / "second"))
    assert first == second


def test_whole_cases_are_left_untouched_and_more_are_added(tmp_path: Path) -> None:
    list(write_cohort(tmp_path, cases=1, seed=5, shape=SHAPE))
    before = tree(tmp_path)
    assert len(list(write_cohort(tmp_path, cases=2, seed=5, shape=SHAPE))) == 2
    after = tree(tmp_path)
    assert {path: after[path] for path in before} == before
    assert len(after) == 2 * len(before)


@pytest.mark.parametrize("lost", ["seg", "t1n"])
def test_a_case_that_lacks_a_file_is_made_again(tmp_path: Path, lost: str) -> None:
    (files,) = write_cohort(tmp_path, cases=1, seed=5, shape=SHAPE)
    path = files.folder / f"{files.name}-{lost}.nii.gz"
    content = path.read_bytes()
    path.unlink()
    list(write_cohort(tmp_path, cases=1, seed=5, shape=SHAPE))
    assert path.read_bytes() == content


def test_a_case_of_another_shape_is_not_passed_off_as_the_one_asked_for(tmp_path: Path) -> None:
    list(write_cohort(tmp_path, cases=1, seed=5, shape=SHAPE))
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"phantom-0005-0000 already holds a case of shape \(20, 18, 16\), not \(16, 16, 16\)"):
        list(write_cohort(tmp_path, cases=1, seed=5, shape=(16, 16, 16)))
    assert tree(tmp_path) == before


def test_a_cohort_can_start_anywhere(tmp_path: Path) -> None:
    (files,) = write_cohort(tmp_path, cases=1, seed=5, first=7, shape=SHAPE)
    label = read_case(files, ("flair",)).label
    assert files.name == "phantom-0005-0007"
    assert label is not None
    assert not label.any()


@pytest.mark.parametrize(("cases", "shape", "what"), [(0, SHAPE, "--cases must be at least 1, got 0"), (1, (8, 20, 20), "at least 16")])
def test_a_cohort_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, cases: int, shape: tuple[int, int, int], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        list(write_cohort(tmp_path / "cohort", cases=cases, seed=0, shape=shape))
    assert not tree(tmp_path)


def test_cases_drawn_side_by_side_are_the_same_and_in_order(tmp_path: Path) -> None:
    (apart,), together = (list(write_cohort(tmp_path / "one", cases=1, seed=5, first=2, shape=SHAPE)), tmp_path / "all")
    names = [files.name for files in write_cohort(together, cases=4, seed=5, shape=SHAPE, workers=2)]
    assert names == [f"phantom-0005-{index:04d}" for index in range(4)]
    found, expected = tree(together / apart.name), tree(apart.folder)
    assert {path: content for path, (_, content) in found.items()} == {path: content for path, (_, content) in expected.items()}


def test_an_error_of_a_process_is_the_one_it_would_be_here(tmp_path: Path) -> None:
    (tmp_path / "cohort").touch()
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'cohort'}/phantom-0000-0000") as caught:
        list(write_cohort(tmp_path / "cohort", cases=3, seed=0, shape=SHAPE, workers=2))
    assert "choose another --out" in caught.value.hint


def test_a_process_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_land", die)
    with pytest.raises(EdgeLatupError, match="a process that drew phantoms was ended") as caught:
        list(write_cohort(tmp_path, cases=3, seed=0, shape=SHAPE, workers=2))
    assert caught.value.hint == "run it again"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "cohort").touch()
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'cohort'}/phantom-0000-0000"):
        list(write_cohort(tmp_path / "cohort", cases=1, seed=0, shape=SHAPE))
