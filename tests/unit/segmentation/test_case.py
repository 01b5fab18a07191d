"""A segmenter turns the files of a case into a label map and a sidecar that says how it was made, within a memory budget."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import AFFINE, NAMES_2021, SHAPE, intensities, write_case, write_nifti
from tiny_models import pointwise_artifact, tiny_spec

from edge_latup.artifact import Artifact, sha256_of
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.errors import CaseError, InputError
from edge_latup.records import read_record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions
from edge_latup.segmentation import case as case_module
from edge_latup.segmentation import memory
from edge_latup.segmentation.case import Outcome, Segmenter
from edge_latup.segmentation.records import GaveWay, SegmentationRecord, sidecar_of
from edge_latup.segmentation.windows import window_boxes
from edge_latup.spec import BrainCrop, CentreCrop, ModelSpec, SlidingWindow, Spatial

MIB = 1 << 20
OPTIONS = SessionOptions(threads=1)
WINDOWS = SlidingWindow(size=(8, 8, 8), overlap=0.5, blending="gaussian")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """One 1^3 convolution of free size: what it makes of a voxel depends on that voxel's three values alone."""
    return pointwise_artifact(tmp_path_factory.mktemp("artifact") / "pointwise")


@pytest.fixture
def files(tmp_path: Path) -> CaseFiles:
    return find_cases(write_case(tmp_path / "case"))[0]


def spec_of(spatial: Spatial, **changes: object) -> ModelSpec:
    return tiny_spec(network=None, spatial=spatial, **changes)


def run(model: Artifact, files: CaseFiles, out: Path, spatial: Spatial, budget: int | None = None, **changes: object) -> Outcome:
    with Segmenter(model, options=OPTIONS, spec=spec_of(spatial, **changes), memory_budget=budget) as segmenter:
        return segmenter.segment_files(files, out)


def label_in(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_sidecar_says_which_model_made_it_of_which_files(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    spatial = CentreCrop(size=(16, 16, 16))
    record = run(model, files, out, spatial).record
    assert read_record(SegmentationRecord, tmp_path / "out.json") == record
    assert (record.case, record.artifact, record.artifact_sha256) == ("case", "pointwise", model.digest)
    assert (record.label_map.name, record.label_map.size, record.label_map.sha256) == ("out.nii.gz", out.stat().st_size, sha256_of(out))
    assert {modality: found.name for modality, found in record.inputs.items()} == {
        modality: f"case{NAMES_2021[modality]}.nii.gz" for modality in ("flair", "t1ce", "t2")
    }
    assert all(found.sha256 == sha256_of(files.folder / found.name) for found in record.inputs.values())
    settings = record.settings
    assert (settings.runtime, settings.float_precision, settings.threads, settings.gave_way) == ("openvino", "fp32", 1, None)
    assert settings.spec == spec_of(spatial)
    assert (record.input_shape, record.windows, record.windows_run) == ((1, 3, 16, 16, 16), 1, 1)
    assert record.volumes_ml["WT"] == np.count_nonzero(label_in(out)) / 1000 > 0
    assert {"edge-latup", "openvino", "python"} <= record.versions.keys()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_the_sidecar_lies_beside_its_label_map(ending: str) -> None:
    assert sidecar_of(Path(f"out/case.1{ending}")) == Path("out/case.1.json")


@pytest.mark.parametrize("spatial", [CentreCrop(size=(16, 16, 16)), BrainCrop(), WINDOWS], ids=lambda spatial: spatial.kind)
def test_the_same_work_gives_the_same_bytes(model: Artifact, files: CaseFiles, tmp_path: Path, spatial: Spatial) -> None:
    """In one segmenter one after the other, in a new one, and into another folder."""
    (tmp_path / "again").mkdir()
    places = [tmp_path / "out.nii.gz", tmp_path / "again" / "out.nii.gz"]
    with Segmenter(model, options=OPTIONS, spec=spec_of(spatial)) as segmenter:
        for out in places:
            segmenter.segment_files(files, out)
    first = [(out.read_bytes(), sidecar_of(out).read_bytes()) for out in places]
    run(model, files, places[0], spatial)
    assert {*first, (places[0].read_bytes(), sidecar_of(places[0]).read_bytes())} == {first[0]}


def test_every_stage_is_timed_and_the_peak_is_measured(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    outcome = run(model, files, tmp_path / "out.nii.gz", WINDOWS)
    assert list(outcome.seconds) == ["read", "normalise", "load", "infer", "blend", "post-process", "write", "total"]
    assert outcome.seconds["total"] > 0
    assert outcome.peak_bytes > 10 * MIB
    assert outcome.forecast is None


def headed(folder: Path) -> CaseFiles:
    """A case whose head is 7 x 10 x 5 voxels of SHAPE, with air around it."""
    for seed, modality in enumerate(("flair", "t1ce", "t2")):
        image = np.zeros(SHAPE, np.int16)
        image[1:8, 5:15, 2:7] = intensities(seed, (7, 10, 5)) + 100
        write_nifti(folder / f"{folder.name}{NAMES_2021[modality]}.nii.gz", image)
    return find_cases(folder)[0]


def test_a_brain_crop_is_the_head_and_no_air(model: Artifact, tmp_path: Path) -> None:
    record = run(model, headed(tmp_path / "case"), tmp_path / "out.nii.gz", BrainCrop()).record
    assert record.input_shape == (1, 3, 8, 16, 8)
    assert record.settings.spec.spatial == BrainCrop()
    assert (record.windows, record.windows_run) == (1, 1)


def test_windows_without_head_are_not_run(model: Artifact, tmp_path: Path) -> None:
    files = headed(tmp_path / "case")
    record = run(model, files, tmp_path / "out.nii.gz", WINDOWS).record
    assert record.windows == len(window_boxes(SHAPE, WINDOWS))
    assert 0 < record.windows_run < record.windows
    everything = run(model, files, tmp_path / "all.nii.gz", WINDOWS.model_copy(update={"skip_air": False})).record
    assert (everything.windows, everything.windows_run) == (record.windows, record.windows)


def test_views_agree_where_the_network_looks_at_one_voxel_at_a_time(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    """Turned, seen and turned back, every voxel gets the class it gets without views: nothing is put in the wrong place."""
    crop = CentreCrop(size=(16, 16, 16))
    run(model, files, tmp_path / "once.nii.gz", crop)
    record = run(model, files, tmp_path / "thrice.nii.gz", crop, views=("identity", "mirror", "rotate")).record
    assert record.settings.spec.views == ("identity", "mirror", "rotate")
    np.testing.assert_array_equal(label_in(tmp_path / "thrice.nii.gz"), label_in(tmp_path / "once.nii.gz"))


def test_an_oblique_case_gets_its_label_map_on_its_own_grid(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    oblique = find_cases(write_case(tmp_path / "oblique", affine=turn @ AFFINE))[0]
    for source, name in ((files, "straight"), (oblique, "turned")):
        run(model, source, tmp_path / f"{name}.nii.gz", CentreCrop(size=(16, 16, 16)))
    np.testing.assert_allclose(nib.load(tmp_path / "turned.nii.gz").affine, turn @ AFFINE, atol=1e-5)
    np.testing.assert_array_equal(label_in(tmp_path / "turned.nii.gz"), label_in(tmp_path / "straight.nii.gz"))


@pytest.fixture
def small_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict as a process of 100 MiB does: this one holds whatever the tests before left in it."""
    monkeypatch.setattr(memory, "process_bytes", lambda field: 100 * MIB)


@pytest.mark.usefixtures("small_process")
@pytest.mark.parametrize("declared", [CentreCrop(), SlidingWindow(overlap=0.5, blending="constant")], ids=lambda spatial: spatial.kind)
def test_under_a_budget_windows_shrink_until_they_fit(model: Artifact, files: CaseFiles, tmp_path: Path, declared: Spatial) -> None:
    overlap = declared.overlap if isinstance(declared, SlidingWindow) else 0.25
    small = run(model, files, tmp_path / "small.nii.gz", SlidingWindow(size=(64, 64, 64), overlap=overlap), budget=1000 * MIB)
    assert small.forecast is not None
    budget = small.forecast.total
    outcome = run(model, files, tmp_path / "out.nii.gz", declared, budget=budget)
    applied = outcome.record.settings.spec.spatial
    assert isinstance(applied, SlidingWindow)
    assert (applied.size, applied.overlap) == ((64, 64, 64), overlap)
    assert outcome.record.input_shape == (1, 3, 64, 64, 64)
    assert outcome.record.settings.gave_way == GaveWay(declared=declared, memory_budget=budget)
    assert outcome.record.settings.asked_for.spec == spec_of(declared)
    assert outcome.forecast is not None
    assert 100 * MIB < outcome.forecast.total <= budget


@pytest.mark.usefixtures("small_process")
def test_a_budget_that_is_large_enough_changes_nothing(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    run(model, files, tmp_path / "free.nii.gz", WINDOWS)
    outcome = run(model, files, tmp_path / "kept.nii.gz", WINDOWS, budget=1000 * MIB)
    assert outcome.record.settings.gave_way is None
    assert (tmp_path / "kept.nii.gz").read_bytes() == (tmp_path / "free.nii.gz").read_bytes()


def test_a_budget_is_held_against_what_was_there_before_the_first_inference(
    model: Artifact, files: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a runtime keeps from one case for the next is not counted twice, and a peak that is over does not refuse later cases."""
    held = {"VmRSS": 100 * MIB, "VmHWM": 120 * MIB}
    monkeypatch.setattr(memory, "process_bytes", held.__getitem__)
    with Segmenter(model, spec=spec_of(WINDOWS), memory_budget=1000 * MIB) as segmenter:
        first = segmenter.segment_files(files, tmp_path / "first.nii.gz")
        held.update({"VmRSS": 990 * MIB, "VmHWM": 1001 * MIB})
        second = segmenter.segment_files(files, tmp_path / "second.nii.gz")
    assert first.forecast == second.forecast
    assert second.record.settings.gave_way is None


@pytest.mark.usefixtures("small_process")
def test_where_nothing_fits_the_predicted_peaks_are_told_and_nothing_is_written(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing fits a memory budget of 0.05 GiB") as caught:
        run(model, files, tmp_path / "out.nii.gz", CentreCrop(), budget=50 * MIB)
    for tried in ("centre-crop 128x128x128: 0.", "sliding-window 128x128x128: 0.", "sliding-window 32x32x32: 0.1"):
        assert tried in caught.value.message
    assert "--memory-budget" in caught.value.hint
    assert not list(tmp_path.glob("*out*"))


def test_a_runtime_that_cannot_tell_its_memory_is_refused_under_a_budget(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    with (
        Segmenter(model, runtime="onnxruntime", spec=spec_of(WINDOWS), memory_budget=8 << 30) as segmenter,
        pytest.raises(InputError, match="onnxruntime does not tell what memory it needs"),
    ):
        segmenter.segment_files(files, tmp_path / "out.nii.gz")


def test_a_bad_case_leaves_the_segmenter_usable(model: Artifact, files: CaseFiles, tmp_path: Path) -> None:
    missing = dataclasses.replace(files, images={name: files.images[name] for name in ("flair", "t2")})
    with Segmenter(model, options=OPTIONS, spec=spec_of(WINDOWS)) as segmenter:
        with pytest.raises(CaseError, match="no t1ce volume"):
            segmenter.segment_files(missing, tmp_path / "bad.nii.gz")
        segmenter.segment_files(files, tmp_path / "out.nii.gz")
    assert not list(tmp_path.glob("*bad*"))


def test_a_model_that_did_not_load_is_tried_again(
    model: Artifact, files: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        monkeypatch.setattr(case_module, "open_session", open_session)
        raise MemoryError

    monkeypatch.setattr(case_module, "open_session", out_of_memory)
    with Segmenter(model, options=OPTIONS, spec=spec_of(WINDOWS)) as segmenter:
        with pytest.raises(MemoryError):
            segmenter.segment_files(files, tmp_path / "out.nii.gz")
        segmenter.segment_files(files, tmp_path / "out.nii.gz")
    assert (tmp_path / "out.nii.gz").is_file()


def test_a_label_map_without_its_sidecar_is_not_left(
    model: Artifact, files: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(case_module, "write_record", full)
    with pytest.raises(InputError, match="cannot write .*out.json: No space left on device"):
        run(model, files, tmp_path / "out.nii.gz", WINDOWS)
    assert not list(tmp_path.glob("*out*"))
