"""MetaImage: the voxels and the place in space that SimpleITK reads, cases of BRATS 2013, and a plain word without the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from support import AFFINE, SHAPE, canonical_label, intensities, tree, write_nifti

from edge_latup.cases.layout import find_cases
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case, read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import InputError, MissingDependencyError

OBLIQUE = np.array([[0.0, -0.96, 0.56, 30], [0.9, 0, 0, -20], [0, 0.28, 1.92, 4], [0, 0, 0, 1]])
KINDS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64)
FLAIR = "VSD.Brain.XX.O.MR_Flair.54512.mha"


def write_meta(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, *, packed: bool = True) -> Path:
    """Write (x, y, z) at a RAS affine; independent of the package's own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    flip = np.array([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((flip[:, None] * affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((flip * affine[:3, 3]).tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return path


def brats_2013(folder: Path, label: np.ndarray | None, *, nested: bool = False) -> Path:
    """A case named, and where asked laid out, as BRATS 2013 was published."""
    arrays = {f"MR_{name}.{54512 + k}": intensities(k) for k, name in enumerate(("Flair", "T1c", "T2", "T1"))}
    named = {f"VSD.Brain.XX.O.{ending}": array for ending, array in arrays.items()}
    if label is not None:
        named["VSD.Brain_3more.XX.O.OT.54517"] = label
    for name, array in named.items():
        write_meta((folder / name if nested else folder) / f"{name}.mha", array)
    return folder


def read(folder: Path) -> Case:
    (files,) = find_cases(folder)
    return read_case(files, ("flair", "t1ce", "t2", "t1"))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([2.0, 1.0, -3.0, 1.0])])
def test_voxels_and_place_are_those_of_the_same_nifti(tmp_path: Path, affine: np.ndarray, suffix: str, packed: bool) -> None:
    """SimpleITK converts a NIfTI that nibabel wrote: two libraries that know nothing of each other's conventions."""
    nifti = write_nifti(tmp_path / "exam.nii", intensities(0), affine)
    path = tmp_path / f"exam{suffix}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(path), useCompression=packed)
    found, expected = open_volume(path), open_volume(nifti)
    np.testing.assert_array_equal(found.values(None), intensities(0))
    np.testing.assert_allclose(found.grid.affine, expected.grid.affine, atol=1e-4)
    assert found.grid.shape == SHAPE
    assert found.grid.orientation == expected.grid.orientation


def test_an_ending_in_capitals_is_known(tmp_path: Path) -> None:
    path = write_meta(tmp_path / "exam.mha", intensities(0)).rename(tmp_path / "EXAM.MHA")
    np.testing.assert_array_equal(open_volume(path).values(None), intensities(0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_is_read(tmp_path: Path, kind: type[np.generic]) -> None:
    array = np.random.default_rng(0).integers(0, 100, SHAPE).astype(kind)
    values = open_volume(write_meta(tmp_path / "exam.mha", array)).values(None)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, array)


def test_numbers_stored_high_byte_first_are_read(tmp_path: Path) -> None:
    path = write_meta(tmp_path / "exam.mha", intensities(0), packed=False)
    text, voxels = path.read_bytes().split(b"LOCAL\n")
    swapped = np.frombuffer(voxels, "<i2").astype(">i2").tobytes()
    path.write_bytes(text.replace(b"OrderMSB = False", b"OrderMSB = True") + b"LOCAL\n" + swapped)
    np.testing.assert_array_equal(open_volume(path).values(None), intensities(0))


@pytest.mark.parametrize("nested", [False, True])
def test_a_case_of_brats_2013_comes_back_and_its_label_map_in_its_own_numbers(tmp_path: Path, nested: bool) -> None:
    """1 necrosis, 2 oedema, 3 non-enhancing core, 4 enhancing tumour; core is written as 1 whichever it was."""
    numbers = np.array([0, 1, 2, 4], np.uint8)[canonical_label()]
    numbers[numbers == 1] = 3
    case = read(brats_2013(tmp_path / "0001", numbers, nested=nested))
    assert case.name == "0001"
    for seed, modality in enumerate(("flair", "t1ce", "t2", "t1")):
        np.testing.assert_array_equal(case.images[modality], intensities(seed))
    np.testing.assert_array_equal(case.label, canonical_label())
    np.testing.assert_allclose(case.grid.affine, AFFINE)
    assert case.label is not None
    write_label_map(case.label, case, tmp_path / "result.mha")
    written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "result.mha"))).T
    np.testing.assert_array_equal(written, np.array([0, 1, 2, 4])[canonical_label()])


def test_a_tumour_that_does_not_enhance_is_not_taken_for_one_that_does(tmp_path: Path) -> None:
    """Without a 4, a later year's file would call 3 enhancing tumour; the names say that it is core."""
    label = np.where(canonical_label() == 3, 0, canonical_label()).astype(np.uint8)
    label[0, 0, 0] = 3
    case = read(brats_2013(tmp_path / "0001", label))
    assert case.label is not None
    assert case.label[0, 0, 0] == 1
    assert set(np.unique(case.label)) == {0, 1, 2}


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([2.0, 1.0, -3.0, 1.0])])
def test_a_label_map_is_on_the_cases_own_grid(tmp_path: Path, affine: np.ndarray) -> None:
    grid = Grid(shape=SHAPE, affine=affine)
    case = Case(name="case", images={}, label=None, grid=grid, convention="brats-2023")
    (tmp_path / "result.mha").write_bytes(b"older")
    write_label_map(canonical_label(), case, tmp_path / "result.mha")
    found = open_volume(tmp_path / "result.mha")
    assert found.image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-12)
    np.testing.assert_array_equal(found.values(None), canonical_label())
    assert list(tree(tmp_path)) == ["result.mha"]


def test_a_disk_that_fills_up_leaves_the_older_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SimpleITK returns as if all were well."""
    case = Case(name="case", images={}, label=None, grid=Grid(shape=SHAPE, affine=AFFINE), convention="brats-2023")
    (tmp_path / "result.mha").write_bytes(b"older")
    before, whole = tree(tmp_path), SimpleITK.WriteImage

    def half(image: object, path: str, **options: object) -> None:
        whole(image, path, **options)
        Path(path).write_bytes(Path(path).read_bytes()[:-40])

    monkeypatch.setattr(SimpleITK, "WriteImage", half)
    with pytest.raises(InputError, match=r"cannot write .*result\.mha: SimpleITK could not write it whole"):
        write_label_map(canonical_label(), case, tmp_path / "result.mha")
    assert tree(tmp_path) == before


def test_without_simpleitk_the_command_that_installs_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_meta(tmp_path / FLAIR, intensities(0))
    case = Case(name="case", images={}, label=None, grid=Grid(shape=SHAPE, affine=AFFINE), convention="brats-2023")
    before = tree(tmp_path)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    for attempt in (lambda: open_volume(path), lambda: write_label_map(canonical_label(), case, path)):
        with pytest.raises(MissingDependencyError, match=f"{path} is a MetaImage, which needs SimpleITK") as caught:
            attempt()
        assert caught.value.hint == "in edge-latup's folder: pip install -c constraints.txt '.[metaimage]'"
        assert caught.value.exit_code == 3
    assert tree(tmp_path) == before


def test_finding_reading_and_writing_nifti_does_not_load_simpleitk(tmp_path: Path) -> None:
    for name in ("case_flair.nii", "case_seg.nii"):
        write_nifti(tmp_path / "case" / name, canonical_label())
    script = (
        "import sys; from pathlib import Path; from edge_latup.cases import cohort, identity, layout, read, write; "
        "case = read.read_case(layout.find_cases(Path(sys.argv[1]))[0], ('flair',)); "
        "write.write_label_map(case.label, case, Path(sys.argv[2])); sys.exit('SimpleITK' in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", script, str(tmp_path / "case"), str(tmp_path / "out.nii")], check=True)
