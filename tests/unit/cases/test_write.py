"""Writing: a label map lies on its case's own grid, in its case's own numbers, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import AFFINE, NAMES_2021, NAMES_2023, SHAPE, canonical_label, intensities, tree, write_nifti
from support import write_case as write_files

from edge_latup.cases.layout import find_cases
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case, read_case
from edge_latup.cases.write import write_case, write_label_map
from edge_latup.errors import InputError

OBLIQUE = np.array([[0.0, -0.96, 0.56, 30], [0.9, 0, 0, -20], [0, 0.28, 1.92, 4], [0, 0, 0, 1]])
"""Axes near A, L and S, tilted, of 0.9 x 1 x 2 mm."""


def case_of(folder: Path, names: dict[str, str] = NAMES_2021, affine: np.ndarray = AFFINE) -> Case:
    (files,) = find_cases(write_files(folder, names, affine=affine))
    return read_case(files, ("flair", "t1ce", "t2"))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([2.0, 1.0, -3.0, 1.0])])
def test_a_label_map_is_on_the_cases_own_grid(tmp_path: Path, affine: np.ndarray, suffix: str) -> None:
    case = case_of(tmp_path / "case", affine=affine)
    path = tmp_path / f"result{suffix}"
    write_label_map(canonical_label(), case, path)
    image = nib.load(path)
    assert image.shape == SHAPE
    assert image.get_data_dtype() == np.uint8
    for form in ("qform", "sform"):
        stored, code = getattr(image, f"get_{form}")(coded=True)
        assert code == 1
        np.testing.assert_allclose(stored, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert path.read_bytes().startswith(b"\x1f\x8b") == (suffix == ".nii.gz")


def test_what_was_found_in_the_networks_orientation_is_written_where_it_lies(tmp_path: Path) -> None:
    """World coordinates of the labelled voxels are those of the case's own label, whatever its axes."""
    case = case_of(tmp_path / "case", affine=OBLIQUE)
    assert case.label is not None
    found = case.grid.reorient(case.label, "LPS")
    write_label_map(np.asarray(case.grid.restore(found, "LPS"), np.uint8), case, tmp_path / "result.nii.gz")
    written = nib.load(tmp_path / "result.nii.gz")
    own = nib.load(tmp_path / "case" / "case_seg.nii.gz")
    for number in (1, 2, 3):
        voxels = [np.argwhere(np.asarray(image.dataobj) == number) for image in (written, own)]
        world = [nib.affines.apply_affine(image.affine, v) for image, v in zip((written, own), voxels, strict=True)]
        np.testing.assert_allclose(world[0], world[1], atol=1e-4)


def test_the_numbers_are_those_of_the_case(tmp_path: Path) -> None:
    """A case that came with 4 for enhancing tumour gets 4 back; one with 3 gets 3."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_files(old)
    write_nifti(old / "old_seg.nii.gz", np.array([0, 1, 2, 4], np.uint8)[canonical_label()])
    write_files(new, NAMES_2023)
    for folder, numbers in ((old, [0, 1, 2, 4]), (new, [0, 1, 2, 3])):
        (files,) = find_cases(folder)
        case = read_case(files, ("flair",))
        assert case.label is not None
        write_label_map(case.label, case, tmp_path / "result.nii.gz")
        written = np.asarray(nib.load(tmp_path / "result.nii.gz").dataobj)
        assert np.unique(written).tolist() == numbers
        np.testing.assert_array_equal(written, np.asarray(nib.load(files.label).dataobj))


def test_an_unlabelled_case_gets_the_numbers_of_its_naming(tmp_path: Path) -> None:
    names = {key: value for key, value in NAMES_2021.items() if key != "label"}
    case = case_of(tmp_path / "case", names)
    write_label_map(canonical_label(), case, tmp_path / "result.nii.gz")
    assert np.unique(np.asarray(nib.load(tmp_path / "result.nii.gz").dataobj)).tolist() == [0, 1, 2, 4]


def test_an_older_result_is_replaced(tmp_path: Path) -> None:
    case = case_of(tmp_path / "case")
    (tmp_path / "result.nii.gz").write_bytes(b"older")
    write_label_map(canonical_label(), case, tmp_path / "result.nii.gz")
    assert nib.load(tmp_path / "result.nii.gz").shape == SHAPE


def test_the_same_label_map_gives_the_same_bytes(tmp_path: Path) -> None:
    case = case_of(tmp_path / "case")
    for name in ("first", "second"):
        write_label_map(canonical_label(), case, tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "first.nii.gz").read_bytes() == (tmp_path / "second.nii.gz").read_bytes()


def test_a_label_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path / "case")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"label map \(15, 18, 20\) is not on the grid of case case \(16, 18, 20\)"):
        write_label_map(canonical_label()[1:], case, tmp_path / "result.nii.gz")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", ["missing/result.nii.gz", "file/result.nii.gz", "folder.nii.gz", "result.mhd", "result"])
def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path, place: str) -> None:
    case = case_of(tmp_path / "case")
    (tmp_path / "file").touch()
    (tmp_path / "folder.nii.gz").mkdir()
    before = tree(tmp_path)
    with pytest.raises(InputError) as caught:
        write_label_map(canonical_label(), case, tmp_path / place)
    assert str(tmp_path / place) in caught.value.message
    assert caught.value.hint
    assert tree(tmp_path) == before


def test_a_disk_that_fills_up_leaves_the_older_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(tmp_path / "case")
    (tmp_path / "result.nii.gz").write_bytes(b"older")
    before = tree(tmp_path)

    def half(_image: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_latup.cases.write.nib.save", half)
    with pytest.raises(InputError, match=r"cannot write .*result\.nii\.gz: No space left on device"):
        write_label_map(canonical_label(), case, tmp_path / "result.nii.gz")
    assert tree(tmp_path) == before


def test_a_case_is_written_with_the_names_of_2023_and_reads_back(tmp_path: Path) -> None:
    grid = Grid(shape=SHAPE, affine=OBLIQUE)
    write_case(tmp_path / "new" / "a", "a", {"flair": intensities(0), "t1ce": intensities(1)}, canonical_label(), grid)
    assert sorted(p.name for p in (tmp_path / "new" / "a").iterdir()) == ["a-seg.nii.gz", "a-t1c.nii.gz", "a-t2f.nii.gz"]
    (files,) = find_cases(tmp_path)
    case = read_case(files, ("t1ce", "flair"))
    np.testing.assert_array_equal(case.images["flair"], intensities(0))
    np.testing.assert_array_equal(case.label, canonical_label())
    np.testing.assert_allclose(case.grid.affine, OBLIQUE, atol=1e-5)


def test_a_case_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'file' / 'a'}: Not a directory"):
        write_case(tmp_path / "file" / "a", "a", {"flair": intensities(0)}, None, Grid(shape=SHAPE, affine=AFFINE))
