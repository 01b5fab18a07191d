"""Reading a case: what is whole comes back voxel for voxel, what cannot be trusted is refused by name and leaves no trace."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    AFFINE,
    BROKEN_CASES,
    BROKEN_IMAGES,
    BROKEN_LABELS,
    NAMES_2021,
    NAMES_2023,
    SHAPE,
    canonical_label,
    intensities,
    tree,
    write_case,
    write_nifti,
)

from edge_latup.cases.layout import find_cases
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.read import Case, read_case
from edge_latup.cases.volume import Volume
from edge_latup.errors import CaseError
from edge_latup.spec import MODALITIES, Modality

ASKED: tuple[Modality, ...] = ("flair", "t1ce", "t2")


def read(path: Path, modalities: tuple[Modality, ...] = ASKED, *, with_label: bool = True) -> Case:
    (files,) = find_cases(path)
    return read_case(files, modalities, with_label=with_label)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("names", [NAMES_2021, NAMES_2023])
def test_a_whole_case_comes_back_voxel_for_voxel(tmp_path: Path, names: dict[str, str], suffix: str) -> None:
    case = read(write_case(tmp_path / "case", names, suffix=suffix), MODALITIES)
    for seed, modality in enumerate(MODALITIES):
        assert case.images[modality].dtype == np.float32
        np.testing.assert_array_equal(case.images[modality], intensities(seed))
    np.testing.assert_array_equal(case.label, canonical_label())
    assert case.grid.shape == SHAPE
    np.testing.assert_array_equal(case.grid.affine, AFFINE)
    assert case.grid.orientation == "LPS"


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    write_case(tmp_path / "case")
    (tmp_path / "case" / "case_t1.nii.gz").write_bytes(b"damaged")
    (tmp_path / "case" / "case_seg.nii.gz").write_bytes(b"damaged")
    case = read(tmp_path / "case", with_label=False)
    assert list(case.images) == list(ASKED)
    assert case.label is None


def test_the_scaling_of_the_file_is_applied(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case")
    image = nib.Nifti1Image(intensities(0), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, folder / "case_flair.nii.gz")
    np.testing.assert_array_equal(read(folder).images["flair"], intensities(0) * 0.5 + 3)


def test_nifti_2_and_a_gzip_without_its_ending_are_read(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case", suffix=".nii")
    nib.save(nib.Nifti2Image(intensities(0), AFFINE), folder / "case_flair.nii")
    (folder / "case_t2.nii").write_bytes(gzip.compress((folder / "case_t2.nii").read_bytes()))
    case = read(folder)
    np.testing.assert_array_equal(case.images["flair"], intensities(0))
    np.testing.assert_array_equal(case.images["t2"], intensities(2))


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case")
    write_nifti(folder / "case_flair.nii.gz", intensities(0)[..., None])
    assert read(folder).images["flair"].shape == SHAPE


def test_header_rounding_is_no_disagreement(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case")
    write_nifti(folder / "case_t2.nii.gz", intensities(2), AFFINE + np.eye(4) * 1e-4 * np.array([1, 1, 1, 0]))
    assert read(folder).images["t2"].shape == SHAPE


def test_a_label_without_tumour_is_a_label(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case")
    write_nifti(folder / "case_seg.nii.gz", np.zeros(SHAPE, np.float32))
    label = read(folder).label
    assert label is not None
    assert not label.any()


def test_msd_volume_gives_each_modality_from_its_channel(tmp_path: Path) -> None:
    """Without dataset.json: FLAIR, T1, T1ce, T2; labels 1 oedema, 2 non-enhancing core, 3 enhancing tumour."""
    channels = [intensities(seed) for seed in range(4)]
    write_nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.stack(channels, axis=-1))
    write_nifti(tmp_path / "labelsTr" / "BRATS_001.nii.gz", np.array([0, 2, 1, 3], np.uint8)[canonical_label()])
    case = read(tmp_path, MODALITIES)
    for modality, channel in (("flair", 0), ("t1", 1), ("t1ce", 2), ("t2", 3)):
        np.testing.assert_array_equal(case.images[modality], channels[channel])
    np.testing.assert_array_equal(case.label, canonical_label())
    assert case.convention == "msd"


def test_a_single_4d_file_is_a_case(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "exam.nii.gz", np.stack([intensities(seed) for seed in range(4)], axis=-1))
    case = read(path)
    np.testing.assert_array_equal(case.images["t1ce"], intensities(2))
    assert case.label is None


@pytest.mark.parametrize("channels", [1, 2])
def test_a_4d_file_with_too_few_channels_is_refused(tmp_path: Path, channels: int) -> None:
    path = write_nifti(tmp_path / "exam.nii.gz", np.stack([intensities(seed) for seed in range(channels)], axis=-1))
    with pytest.raises(CaseError, match=r"exam\.nii\.gz has shape .*, expected 4-D with at least 3 channels"):
        read(path, ("flair", "t1ce"))


def test_a_single_3d_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="expected 4-D") as caught:
        read(write_case(tmp_path / "case") / "case_flair.nii.gz")
    assert "give a folder" in caught.value.hint


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exam.nii"
    path.write_text("ObjectType = Image\n", encoding="ascii")
    with pytest.raises(CaseError, match=r"exam\.nii is not a NIfTI file"):
        read(path)


def test_a_folder_where_a_file_should_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=f"{tmp_path} cannot be read"):
        open_volume(tmp_path)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    (files,) = find_cases(write_case(tmp_path / "case"))
    (tmp_path / "case" / "case_t2.nii.gz").unlink()
    with pytest.raises(CaseError, match=r"case_t2\.nii\.gz does not exist"):
        read_case(files, ASKED)


def test_no_modality_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no modality asked of case case"):
        read(write_case(tmp_path / "case"), ())


def test_ringing_below_zero_is_read_as_it_is(tmp_path: Path) -> None:
    """Resampling leaves small negative values around the head; they are neither clipped nor refused."""
    folder = write_case(tmp_path / "case")
    ringing = intensities(0) - np.float32(3.7)
    assert ringing.min() < 0
    write_nifti(folder / "case_flair.nii.gz", ringing)
    np.testing.assert_array_equal(read(folder).images["flair"], ringing)


def test_the_first_modality_asked_for_is_blamed_whichever_file_is_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_case(tmp_path / "case")
    for name in ("t1ce", "t2", "t1", "seg"):
        (folder / f"case_{name}.nii.gz").write_bytes(b"damaged")

    def late(path: Path) -> Volume:
        time.sleep(0.1 if "t1ce" in path.name else 0)
        return open_volume(path)

    monkeypatch.setattr("edge_latup.cases.read.open_volume", late)
    with pytest.raises(CaseError, match=r"case_t1ce\.nii\.gz is not a NIfTI file"):
        read(folder, ("flair", "t1ce", "t2", "t1"))
    with pytest.raises(CaseError, match=r"case_t2\.nii\.gz is not a NIfTI file"):
        read(folder, ("flair", "t2", "t1ce", "t1"))


def test_two_files_are_read_side_by_side_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, held = threading.Barrier(2, timeout=30), []
    opened: list[weakref.ref[Volume]] = []

    def counted(path: Path) -> Volume:
        volume = open_volume(path)
        opened.append(weakref.ref(volume))
        held.append(sum(seen() is not None for seen in opened))
        both.wait()  # breaks where files are read one after the other
        return volume

    monkeypatch.setattr("edge_latup.cases.read.open_volume", counted)
    case = read(write_case(tmp_path / "case"), MODALITIES, with_label=False)
    assert list(case.images) == list(MODALITIES)
    assert len(opened) == 4
    assert max(held) == 2
    assert not any(seen() is not None for seen in opened)


def test_a_4d_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "exam.nii.gz", np.stack([intensities(seed) for seed in range(4)], axis=-1))
    opened: list[Path] = []
    monkeypatch.setattr("edge_latup.cases.read.open_volume", lambda path: opened.append(path) or open_volume(path))
    case = read(path, ("t2", "flair", "t1ce"))
    assert opened == [path]
    assert list(case.images) == ["t2", "flair", "t1ce"]
    assert all(image.base is None for image in case.images.values())  # none holds the whole file


@pytest.mark.parametrize("name", BROKEN_CASES)
def test_a_broken_case_is_refused_by_name_with_a_remedy_and_leaves_no_trace(tmp_path: Path, name: str) -> None:
    make, part = BROKEN_CASES[name]
    make(tmp_path / "case")
    before = tree(tmp_path)
    with pytest.raises(CaseError) as caught:
        read(tmp_path / "case")
    assert part in caught.value.message
    assert str(tmp_path / "case") in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", BROKEN_LABELS)
def test_a_broken_label_does_not_stop_a_case_read_without_it(tmp_path: Path, name: str) -> None:
    BROKEN_LABELS[name][0](tmp_path / "case")
    assert read(tmp_path / "case", with_label=False).label is None


def test_every_kind_of_damage_is_listed_once() -> None:
    assert not BROKEN_IMAGES.keys() & BROKEN_LABELS.keys()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_header_is_read_or_refused_but_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = write_nifti(tmp_path_factory.getbasetemp() / "damage" / "case_flair.nii", intensities(0))
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    with contextlib.suppress(CaseError):
        assert np.isfinite(read(path.parent, ("flair",)).images["flair"]).all()
