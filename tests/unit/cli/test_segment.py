"""`edge-latup segment` writes a label map on the case's own grid, or says what is wrong and writes nothing at all."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import Command
from support import AFFINE, BROKEN_CASES, NAMES_2021, NAMES_2023, SHAPE, tree, write_case, write_nifti

from edge_latup.artifact import Artifact
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.metrics.overlap import region_mask
from edge_latup.records import read_record
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import segment
from edge_latup.segmentation.records import SegmentationRecord
from edge_latup.spec import REGIONS, PostProcess, SlidingWindow

UNLABELLED = {key: ending for key, ending in NAMES_2021.items() if key != "label"}


def expected_label(artifact: Artifact, case: Path) -> np.ndarray:
    spec = artifact.manifest.spec
    with open_session(artifact) as session:
        return segment(session, spec, read_case(find_cases(case)[0], spec.modalities)).label


def test_the_label_map_is_written_in_the_cases_numbers_on_its_grid(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", UNLABELLED)
    done = cli("segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii.gz")
    assert (done.code, done.err) == (0, "")
    image = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8
    label = expected_label(tiny_fp32, case)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.array([0, 1, 2, 4])[label])
    assert done.out.startswith(f"{tmp_path / 'out.nii.gz'}: WT ")


def test_json_has_the_volumes_and_the_path_and_nothing_else_is_printed(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", NAMES_2023)
    done = cli("--json", "segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii.gz")
    assert done.code == 0
    label = expected_label(tiny_fp32, case)
    assert done.data["label_map"] == str(tmp_path / "out.nii.gz")
    assert done.data["volumes_ml"] == {region: np.count_nonzero(region_mask(label, region)) / 1000 for region in REGIONS}
    assert list(done.data["seconds"]) == ["read", "normalise", "load", "infer", "blend", "post-process", "write", "total"]
    assert sum(done.data["seconds"].values()) <= 2 * done.data["seconds"]["total"]
    assert (done.data["windows"], done.data["windows_run"]) == (1, 1)
    assert done.data["peak_rss_bytes"] > 0
    assert "forecast" not in done.data


def test_quiet_prints_nothing(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli("--quiet", "segment", tiny_fp32.folder, write_case(tmp_path / "case"), "--out", tmp_path / "out.nii.gz")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "out.nii.gz").is_file()


def test_a_label_beside_the_images_decides_the_numbers(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    """Named as in 2021, labelled as in 2023 (enhancing tumour is 3)."""
    cli("segment", tiny_fp32.folder, write_case(tmp_path / "case", NAMES_2021), "--out", tmp_path / "out.nii.gz")
    assert np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj).max() == 3


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtime_and_threads_can_be_chosen(cli: Command, tiny_fp32: Artifact, tmp_path: Path, runtime: str) -> None:
    case = write_case(tmp_path / "case", UNLABELLED)
    arguments = ("segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii", "--runtime", runtime, "--threads", 1)
    assert cli(*arguments).code == 0
    found = np.asarray(nib.load(tmp_path / "out.nii").dataobj)
    assert np.mean(found == np.array([0, 1, 2, 4])[expected_label(tiny_fp32, case)]) > 0.999


def test_the_compiled_model_is_kept_where_asked(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    arguments = (
        "segment",
        tiny_fp32.folder,
        write_case(tmp_path / "case"),
        "--out",
        tmp_path / "out.nii.gz",
        "--cache",
        tmp_path / "cache",
    )
    assert cli(*arguments).code == 0
    kept = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    first = (tmp_path / "out.nii.gz").read_bytes()
    assert kept
    assert cli(*arguments).code == 0
    assert sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file()) == kept
    assert (tmp_path / "out.nii.gz").read_bytes() == first


@pytest.mark.parametrize("name", BROKEN_CASES)
@pytest.mark.filterwarnings("error")
def test_a_broken_case_is_named_and_nothing_is_written(cli: Command, tiny_fp32: Artifact, tmp_path: Path, name: str) -> None:
    make, message = BROKEN_CASES[name]
    (tmp_path / "out").mkdir()
    make(tmp_path / "case")
    before = tree(tmp_path)
    done = cli("segment", tiny_fp32.folder, tmp_path / "case", "--out", tmp_path / "out" / "label.nii.gz")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "\nhint: " in done.err
    assert "Traceback" not in done.err
    assert tree(tmp_path) == before


def test_a_missing_modality_is_named_with_the_case(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    case = write_case(tmp_path / "patient 7", {"flair": "_flair", "t2": "_t2"})
    done = cli("segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii.gz")
    assert "case patient 7" in done.err
    assert "has no t1ce volume (found: flair, t2)" in done.err


WRONG = {
    "no such artifact": ({"artifact": "nothing"}, "nothing is not an artifact: it does not exist"),
    "a case for an artifact": ({"artifact": "case"}, "case is not an artifact"),
    "no such case": ({"case": "nowhere"}, "nowhere does not exist"),
    "an empty folder": ({"case": "empty"}, "no case found in"),
    "several cases": ({"case": "two"}, "two holds 2 cases, one is asked for"),
    "no NIfTI name": ({"--out": "label.png"}, "label.png is not a NIfTI name"),
    "no such folder": ({"--out": "nowhere/label.nii.gz"}, "nowhere does not exist"),
    "over an image": ({"--out": "case/case_t2.nii.gz"}, "case_t2.nii.gz is a file of the case itself"),
    "over the label": ({"--out": "case/../case/case_seg.nii.gz"}, "case_seg.nii.gz is a file of the case itself"),
    "no such runtime": ({"--runtime": "tensorflow"}, "unknown runtime 'tensorflow'"),
    "another runtime": ({"--runtime": "pytorch"}, "was made for openvino, onnxruntime, not for pytorch"),
    "no such option": ({"--model": "x"}, "No such option: --model"),
    "negative threads": ({"--threads": "-1"}, "--threads"),
    "no such policy": ({"--policy": "whole"}, "--policy 'whole' is not known"),
    "no size": ({"--window": "big"}, "--window 'big' is not a size"),
    "a size the network cannot take": ({"--window": "20x16x16"}, "--window 20x16x16: the network takes multiples of 8"),
    "overlap of all": ({"--policy": "sliding-window", "--overlap": "1"}, "--overlap 1 is not a share of the window"),
    "overlap that is no number": ({"--policy": "sliding-window", "--overlap": "nan"}, "--overlap nan is not a share"),
    "overlap without windows": ({"--overlap": "0.5"}, "--overlap does not belong to centre-crop"),
    "overlap in a brain crop": ({"--policy": "brain-crop", "--overlap": "0.5"}, "--overlap does not belong to brain-crop"),
    "blending in a brain crop": ({"--policy": "brain-crop", "--blending": "gaussian"}, "--blending does not belong to brain-crop"),
    "a window for a brain crop": ({"--policy": "brain-crop", "--window": "16"}, "--window does not belong to brain-crop"),
    "no such blending": ({"--blending": "linear"}, "--blending 'linear' is not known"),
    "no such view": ({"--tta": "identity,upside-down"}, "--tta 'upside-down' is not known"),
    "a view twice": ({"--tta": "mirror,mirror"}, "--tta 'mirror,mirror' names a view twice"),
    "a turn that does not fit": ({"--tta": "rotate", "--window": "8x16x16"}, "but that of 8x16x16 is not square"),
    "fewer than no voxels": ({"--min-component": "-1"}, "--min-component -1 is not a number of voxels"),
    "a tumour of less than nothing": ({"--min-tumour": "-5"}, "--min-tumour -5 is not a number of voxels"),
    "no probability": ({"--threshold": "1.5"}, "--threshold 1.5 is not a probability"),
    "no amount of memory": ({"--memory-budget": "plenty"}, "'plenty' is not an amount of memory"),
    "a cluster for one case": ({"--scheduler": "tcp://127.0.0.1:8786"}, "--scheduler is for a cohort, but --out is one file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_case(tmp_path / "case")
    (tmp_path / "empty").mkdir()
    for inner in ("a", "b"):
        write_case(tmp_path / "two" / inner)
    monkeypatch.chdir(tmp_path)
    changes, message = WRONG[name]
    wanted = {"artifact": str(tiny_fp32.folder), "case": "case", "--out": "label.nii.gz"} | changes
    artifact, case = wanted.pop("artifact"), wanted.pop("case")
    before = tree(tmp_path)
    done = cli("segment", artifact, case, *(part for option in wanted.items() for part in option))
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err
    assert "\nhint: " in done.err or "Usage: " in done.err
    assert tree(tmp_path) == before


def test_options_override_the_artifacts_spec_and_are_recorded(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", UNLABELLED)
    options = {
        "--policy": "sliding-window", "--window": "16x16x8", "--overlap": 0.5, "--blending": "gaussian", "--tta": "identity,mirror,rotate",
        "--min-component": 4, "--min-tumour": 6, "--min-enhancing": 7, "--threshold": 0.6, "--memory-budget": "64GiB",
    }  # fmt: skip
    arguments = (part for option in options.items() for part in option)
    done = cli("--json", "segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii.gz", *arguments)
    assert done.code == 0, done.err
    spec = read_record(SegmentationRecord, tmp_path / "out.json").settings.spec
    assert spec == tiny_fp32.manifest.spec.model_copy(
        update={
            "spatial": SlidingWindow(size=(16, 16, 8), overlap=0.5, blending="gaussian"),
            "views": ("identity", "mirror", "rotate"),
            "post_process": PostProcess(min_component_voxels=4, min_tumour_voxels=6, min_enhancing_voxels=7, threshold=0.6),
        }
    )
    assert (done.data["windows"], done.data["windows_run"]) == (8, 8)
    assert done.data["forecast"]["total"] > done.data["forecast"]["process"] > 0


def test_a_brain_crop_may_be_asked_of_a_model_of_fixed_size(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", UNLABELLED)
    assert cli("segment", tiny_fp32.folder, case, "--out", tmp_path / "out.nii.gz", "--policy", "brain-crop").code == 0
    assert read_record(SegmentationRecord, tmp_path / "out.json").input_shape == (1, 3, 16, 24, 24)


def test_the_human_result_is_one_line(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    arguments = ("segment", tiny_fp32.folder, write_case(tmp_path / "case"), "--out", tmp_path / "out.nii.gz")
    line = cli(*arguments, "--policy", "sliding-window").out
    assert re.fullmatch(
        r".*out\.nii\.gz: WT [\d.]+ mL, TC [\d.]+ mL, ET [\d.]+ mL; 4 of 4 windows hold head; [\d.]+ s \(read [\d.]+, .*write [\d.]+\)\n",
        line,
    )


def test_a_label_map_may_be_a_metaimage(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    case = write_case(tmp_path / "case", UNLABELLED)
    done = cli("segment", tiny_fp32.folder, case, "--out", tmp_path / "out.mha")
    assert done.code == 0, done.err
    assert read_record(SegmentationRecord, tmp_path / "out.json").label_map.name == "out.mha"


def test_a_damaged_artifact_is_told_before_the_case_is_read(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    for path in tiny_fp32.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.onnx").write_bytes(b"another file")
    done = cli("segment", folder, write_case(tmp_path / "case"), "--out", tmp_path / "out.nii.gz")
    assert done.code == 2
    assert "model.onnx is not the file its manifest recorded" in done.err


def test_a_missing_runtime_ends_with_3(cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_latup.runtimes.openvino.installed", lambda package: False)
    done = cli("segment", tiny_fp32.folder, write_case(tmp_path / "case"), "--out", tmp_path / "out.nii.gz")
    assert done.code == 3
    assert "runtime openvino is not installed" in done.err
    assert "hint: in edge-latup's folder: pip install -c constraints.txt '.[core]'" in done.err
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_name_that_looks_like_markup_is_printed_as_it_is(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]x :cat:"
    folder.mkdir()
    done = cli("segment", tiny_fp32.folder, write_case(folder / "case"), "--out", folder / "out.nii.gz")
    assert done.out.startswith(f"{folder / 'out.nii.gz'}: WT ")
    done = cli("--json", "segment", tiny_fp32.folder, folder / "case", "--out", folder / "out.nii.gz")
    assert done.data["label_map"] == str(folder / "out.nii.gz")
    done = cli("segment", tiny_fp32.folder, folder / "nothing", "--out", folder / "out.nii.gz")
    assert f"error: {folder / 'nothing'} does not exist" in done.err


def test_a_four_dimensional_file_is_a_case(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    stacked = np.random.default_rng(0).integers(1, 900, (*SHAPE, 4)).astype(np.int16)
    write_nifti(tmp_path / "BRATS_001.nii.gz", stacked)
    done = cli("segment", tiny_fp32.folder, tmp_path / "BRATS_001.nii.gz", "--out", tmp_path / "out.nii.gz")
    assert done.code == 0, done.err
    assert nib.load(tmp_path / "out.nii.gz").shape == SHAPE
