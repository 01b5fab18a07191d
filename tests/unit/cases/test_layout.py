"""Finding cases: every naming in use, by folder and by file, in a fixed order, and a plain word where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import NAMES_2021, NAMES_2023, intensities, write_case, write_nifti

from edge_latup.cases.layout import MSD_ORDER, Source, files_in, find_cases, stem
from edge_latup.errors import CaseError
from edge_latup.spec import MODALITIES


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def msd_task(root: Path, *cases: str, labels: bool = True) -> Path:
    """Empty files laid out as MSD Task01."""
    touch(root / "imagesTr", *(f"{case}.nii.gz" for case in cases))
    if labels:
        touch(root / "labelsTr", *(f"{case}.nii.gz" for case in cases))
    return root


def describe(root: Path, content: object) -> None:
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


NAMES_2013 = {
    "flair": "VSD.Brain.XX.O.MR_Flair.54512", "t1": "VSD.Brain.XX.O.MR_T1.54513", "t1ce": "VSD.Brain.XX.O.MR_T1c.54514",
    "t2": "VSD.Brain.XX.O.MR_T2.54515", "label": "VSD.Brain_3more.XX.O.OT.54517",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".NII.GZ", ".mha", ".mhd"])
@pytest.mark.parametrize(
    ("name", "endings", "convention"),
    [
        ("Brats18_TCIA01_231_1", NAMES_2021, "brats-2021"),
        ("BraTS20_Training_001", NAMES_2021, "brats-2021"),
        ("BraTS2021_00495", NAMES_2021, "brats-2021"),
        ("BraTS-GLI-00000-000", NAMES_2023, "brats-2023"),
    ],
)
def test_brats_folder_gives_all_four_modalities_and_the_label(
    tmp_path: Path, name: str, endings: dict[str, str], convention: str, suffix: str
) -> None:
    folder = touch(tmp_path / name, *(f"{name}{ending}{suffix}" for ending in endings.values()))
    (case,) = find_cases(folder)
    assert case.name == name
    assert case.images == {modality: Source(path=folder / f"{name}{endings[modality]}{suffix}") for modality in MODALITIES}
    assert case.label == folder / f"{name}_seg{suffix}" or case.label == folder / f"{name}-seg{suffix}"
    assert case.convention == convention
    assert case.folder == folder


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz"])
@pytest.mark.parametrize("nested", [False, True])
def test_brats_2013_is_found_flat_or_with_a_folder_for_each_file(tmp_path: Path, nested: bool, suffix: str) -> None:
    places = {
        key: tmp_path / "HG" / "0001" / (f"{name}/{name}{suffix}" if nested else f"{name}{suffix}") for key, name in NAMES_2013.items()
    }
    for path in places.values():
        touch(path.parent, path.name, f"{path.name}.txt")
    touch(tmp_path / "HG" / "0002", f"{NAMES_2013['t2']}{suffix}")
    case, other = find_cases(tmp_path)
    assert (case.name, other.name) == ("0001", "0002")
    assert case.images == {modality: Source(path=places[modality]) for modality in MODALITIES}
    assert case.label == places["label"]
    assert case.convention == "brats-2013"
    assert case.path == case.folder == tmp_path / "HG" / "0001"
    assert find_cases(case.path) == [case]


def test_another_exam_of_the_names_of_2013_is_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "0001" / "VSD.Brain.XX.O.MR_4DPWI.7", "VSD.Brain.XX.O.MR_4DPWI.7.mha")
    touch(tmp_path / "0001", f"{NAMES_2013['flair']}.mha", "notes.mha")
    assert list(find_cases(tmp_path)[0].images) == ["flair"]


def test_two_exams_of_2013_in_one_folder_are_refused_by_both_names(tmp_path: Path) -> None:
    for number in (1, 2):
        touch(tmp_path / "0001" / f"VSD.Brain.XX.O.MR_T1.{number}", f"VSD.Brain.XX.O.MR_T1.{number}.mha")
    with pytest.raises(CaseError, match=r"0001 has two candidates for t1: VSD.Brain.XX.O.MR_T1.1.mha and VSD.Brain.XX.O.MR_T1.2.mha"):
        find_cases(tmp_path)


def test_the_odd_label_name_of_brats_2020_case_355_is_known(tmp_path: Path) -> None:
    folder = touch(tmp_path / "BraTS20_Training_355", "BraTS20_Training_355_flair.nii", "W39_1998.09.19_Segm.nii")
    assert find_cases(folder)[0].label == folder / "W39_1998.09.19_Segm.nii"


def test_a_case_without_label_is_a_case(tmp_path: Path) -> None:
    assert find_cases(touch(tmp_path / "a", "a_flair.nii"))[0].label is None


def test_files_that_are_no_modality_are_left_alone(tmp_path: Path) -> None:
    folder = touch(tmp_path / "a", "a_flair.nii", "a_mask.nii", "a_t2.txt", "._a_t2.nii", ".a_t1.nii.x1.part.nii")
    assert list(find_cases(folder)[0].images) == ["flair"]


def test_a_label_alone_is_no_case(tmp_path: Path) -> None:
    assert files_in(touch(tmp_path / "a", "a_seg.nii.gz")) is None


def test_cases_are_found_in_nested_folders_sorted_by_name(tmp_path: Path) -> None:
    for place in ("z/first/b", "c", "HGG/a", ".hidden/d"):
        touch(tmp_path / place, "x_flair.nii")
    assert [case.name for case in find_cases(tmp_path)] == ["a", "b", "c"]


def test_the_folder_in_which_one_stands_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path / "mine", "x_flair.nii"))
    assert [case.name for case in find_cases(Path())] == ["mine"]


def test_a_linked_case_keeps_the_name_of_its_link(tmp_path: Path) -> None:
    target = touch(tmp_path / "store" / "0a1b2c", "x_flair.nii")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "patient-1").symlink_to(target, target_is_directory=True)
    assert [case.name for case in find_cases(tmp_path / "cohort")] == ["patient-1"]


def test_two_cases_of_one_name_are_refused_by_both_paths(tmp_path: Path) -> None:
    for place in ("one/a", "two/a"):
        touch(tmp_path / place, "x_flair.nii")
    with pytest.raises(CaseError, match=r"two cases are named a: .*one/a/x_flair.nii and .*two/a/x_flair.nii"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("a_flair.nii", "a_flair.nii.gz"), "flair: a_flair.nii and a_flair.nii.gz"),
        (("a_flair.nii", "a-t2f.nii"), "flair: a-t2f.nii and a_flair.nii"),
        (("a_flair.nii", "a_flair.mha"), "flair: a_flair.mha and a_flair.nii"),
        (("a_flair.nii", "a_seg.nii", "a_label.nii"), "label: a_label.nii and a_seg.nii"),
    ],
)
def test_two_candidates_are_refused_by_both_names(tmp_path: Path, names: tuple[str, ...], what: str) -> None:
    with pytest.raises(CaseError, match=f"two candidates for {what}") as caught:
        find_cases(touch(tmp_path / "a", *names))
    assert caught.value.hint


def test_nothing_found_says_which_names_are_known(tmp_path: Path) -> None:
    touch(tmp_path / "a", "scan.dcm")
    with pytest.raises(CaseError, match=f"no case found in {tmp_path}") as caught:
        find_cases(tmp_path)
    assert "_flair" in caught.value.hint
    assert "-t2f" in caught.value.hint
    assert "imagesTr" in caught.value.hint
    assert "MR_Flair" in caught.value.hint
    assert ".mha" in caught.value.hint


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=f"{tmp_path / 'gone'} does not exist") as caught:
        find_cases(tmp_path / "gone")
    assert caught.value.exit_code == 2


def test_msd_task_has_the_default_order_where_no_dataset_json_tells_it(tmp_path: Path) -> None:
    root = msd_task(tmp_path, "BRATS_002", "BRATS_001")
    cases = find_cases(root)
    assert [case.name for case in cases] == ["BRATS_001", "BRATS_002"]
    path = root / "imagesTr" / "BRATS_001.nii.gz"
    assert cases[0].images == {modality: Source(path=path, channel=MSD_ORDER.index(modality)) for modality in MODALITIES}
    assert MSD_ORDER == ("flair", "t1", "t1ce", "t2")
    assert cases[0].label == root / "labelsTr" / "BRATS_001.nii.gz"
    assert cases[0].convention == "msd"


@pytest.mark.parametrize("key", ["modality", "channel_names"])
def test_msd_dataset_json_tells_the_order(tmp_path: Path, key: str) -> None:
    root = msd_task(tmp_path, "BRATS_001")
    describe(root, {key: {"2": "FLAIR", "0": "T2w", "1": "t1gd", "3": "T1w"}})
    (case,) = find_cases(root)
    assert {modality: source.channel for modality, source in case.images.items()} == {"t2": 0, "t1ce": 1, "flair": 2, "t1": 3}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"modality": 4},
        {"modality": ["FLAIR"]},
        {"modality": {"0": "CT"}},
        {"modality": {"zero": "FLAIR"}},
        {"modality": {"-1": "FLAIR"}},
        {"modality": {"0": "T1w", "1": "T1"}},
    ],
)
def test_a_dataset_json_that_names_no_known_modalities_is_refused(tmp_path: Path, content: object) -> None:
    root = msd_task(tmp_path, "BRATS_001")
    describe(root, content)
    with pytest.raises(CaseError, match=f"{root / 'dataset.json'} does not name its modalities") as caught:
        find_cases(root)
    assert "FLAIR" in caught.value.hint


def test_a_dataset_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (msd_task(tmp_path, "BRATS_001") / "dataset.json").write_bytes(b"\xff{")
    with pytest.raises(CaseError, match=r"dataset\.json does not name"):
        find_cases(tmp_path)


def test_msd_test_images_are_cases_without_label(tmp_path: Path) -> None:
    touch(tmp_path / "imagesTs", "BRATS_485.nii.gz", "._BRATS_485.nii.gz")
    (case,) = find_cases(tmp_path)
    assert case.label is None


@pytest.mark.parametrize("relative", [False, True])
def test_one_volume_of_an_msd_task_keeps_its_label_and_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    root = msd_task(tmp_path, "BRATS_001", "BRATS_002")
    describe(root, {"modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd", "3": "T2w"}})
    monkeypatch.chdir(root / "imagesTr")
    (case,) = find_cases(Path("BRATS_001.nii.gz") if relative else root / "imagesTr" / "BRATS_001.nii.gz")
    assert case.label == root / "labelsTr" / "BRATS_001.nii.gz"
    assert case.images["flair"].channel == 1


def test_a_4d_file_elsewhere_has_the_default_order_and_is_not_its_own_label(tmp_path: Path) -> None:
    path = touch(tmp_path / "exams", "one.nii.gz") / "one.nii.gz"
    describe(tmp_path, {"name": "another project's"})
    (case,) = find_cases(path)
    assert case.name == "one"
    assert case.label is None
    assert case.images["t1ce"] == Source(path=path, channel=2)


@pytest.mark.parametrize(("name", "expected"), [("a.b.nii.gz", "a.b"), ("a.NII", "a"), ("a.nii.gz", "a"), ("a.mha", "a")])
def test_stem_drops_the_whole_ending(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


def test_finding_writes_nothing_and_reads_no_voxel(tmp_path: Path) -> None:
    """A damaged file is found like any other; reading it is what refuses it."""
    write_case(tmp_path / "whole")
    touch(tmp_path / "damaged", "x_flair.nii.gz")
    write_nifti(tmp_path / "more" / "y_t2w.nii", intensities(3))
    assert len(find_cases(tmp_path)) == 3
