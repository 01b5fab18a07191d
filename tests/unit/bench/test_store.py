"""A run is read back whole or refused: every missing, damaged or foreign record is named, with what makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sample_run import HOST, PSEUDO, REAL, REFERENCE, ROWS, Plan, picture, run_record, sample, timing_row, write_run

from edge_latup.bench.records import DriftRecord, TimingRow
from edge_latup.bench.store import RunStore, load_run
from edge_latup.errors import InputError, SpecError
from edge_latup.records import read_record, write_record

FILES = (
    "run.json",
    *(f"rows/{name}.json" for name in ROWS),
    *(f"drift/{name}.json" for name in ROWS if name != REFERENCE),
    f"pictures/{REAL}.npz",
)
"""Every file of the sample run."""


def test_the_sample_run_is_these_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == sorted(FILES)


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = sample(tmp_path / "run")
    plan = Plan()
    assert run.record == run_record(plan)
    assert list(run.rows) == list(ROWS)
    assert run.rows["openvino-int8"] == timing_row("openvino-int8", list(ROWS).index("openvino-int8"), **ROWS["openvino-int8"])
    assert run.candidates == tuple(run.drift) == tuple(name for name in ROWS if name != REFERENCE)
    assert run.reference is run.baseline is run.rows[REFERENCE]


def test_a_picture_comes_back_voxel_for_voxel(tmp_path: Path) -> None:
    written = picture(REAL, tuple(ROWS))
    store = RunStore(tmp_path)
    store.write_picture(written)
    read = store.read_picture(REAL, tuple(ROWS))
    assert (read.case, read.slice_index, list(read.images), list(read.predictions)) == (REAL, 77, ["flair", "t1ce", "t2"], list(ROWS))
    for key, image in written.images.items():
        np.testing.assert_array_equal(read.images[key], image)
    for key, labels in written.predictions.items():
        np.testing.assert_array_equal(read.predictions[key], labels)
    assert read.label is not None
    np.testing.assert_array_equal(read.label, written.label)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_record_is_named_with_what_makes_it(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(SpecError, match="does not exist") as caught:
        load_run(run)
    assert str(run / name) in caught.value.message
    assert f"edge-latup bench ARTIFACT... --out {run}" in caught.value.hint


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_record_is_named(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SpecError) as caught:
        load_run(run)
    assert str(run / name) in caught.value.message


def _change(kind: type[TimingRow] | type[DriftRecord], **fields: object) -> Callable[[Path], None]:
    return lambda path: write_record(read_record(kind, path).model_copy(update=fields), path)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("rows/openvino-int8.json", _change(TimingRow, artifact="other"), "is the row of 'other', not of 'openvino-int8'"),
        ("rows/openvino-int8.json", _change(TimingRow, artifact_sha256="0" * 64), "was made of another openvino-int8 than"),
        ("rows/openvino-int8.json", _change(TimingRow, runtime="onnxruntime"), "was made of another openvino-int8 than"),
        (f"rows/{REFERENCE}.json", _change(TimingRow, artifact_sha256="0" * 64), "compares with another reference than"),
        ("drift/openvino-int8.json", _change(DriftRecord, artifact="other"), "is the drift of 'other', not of 'openvino-int8'"),
        ("drift/openvino-int8.json", _change(DriftRecord, artifact_sha256="0" * 64), "was made of another openvino-int8 than"),
        ("drift/openvino-int8.json", _change(DriftRecord, reference="other"), "compares with another reference than"),
    ],
)
def test_a_record_of_another_artifact_is_refused(tmp_path: Path, name: str, spoil: Callable[[Path], None], message: str) -> None:
    run = write_run(tmp_path / "run")
    spoil(run / name)
    with pytest.raises(SpecError, match=message):
        load_run(run)


def test_a_drift_record_that_skips_a_case_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "drift" / "openvino-bf16.json"
    record = read_record(DriftRecord, path)
    write_record(record.model_copy(update={"cases": tuple(case for case in record.cases if case.case != PSEUDO)}), path)
    with pytest.raises(SpecError, match=r"openvino-bf16\.json does not hold exactly the cases"):
        load_run(run)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"prediction__b": None}, "has no prediction of b"),
        ({"slice_index": None}, "has no image or no slice_index"),
        ({"image_flair": None}, "has no image or no slice_index"),
        ({"label": np.zeros((4, 5), np.uint8)}, "are not slices of one shape"),
        ({"image_flair": np.zeros((4, 4, 4), np.float32)}, "are not slices of one shape"),
        ({"label": np.array([{"not": "numbers"}])}, "cannot be read"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray | None], message: str) -> None:
    plane = np.zeros((4, 4), np.uint8)
    whole = {
        "image_flair": plane.astype(np.float32),
        "label": plane,
        "prediction__a": plane,
        "prediction__b": plane,
        "slice_index": np.array(3),
    }
    store = RunStore(tmp_path)
    store.picture_path("case").parent.mkdir()
    np.savez(store.picture_path("case"), allow_pickle=True, **{key: array for key, array in (whole | arrays).items() if array is not None})
    with pytest.raises(SpecError, match=message):
        store.read_picture("case", ("a", "b"))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.picture_path("case").parent.mkdir()
    store.picture_path("case").write_bytes(b"PNG")
    with pytest.raises(SpecError, match=r"case\.npz is not an \.npz file"):
        store.read_picture("case", ())


@pytest.mark.parametrize("role", ["reference", "baseline"])
def test_reference_and_baseline_are_artifacts_of_the_run(tmp_path: Path, role: str) -> None:
    run = write_run(tmp_path / "run")
    record = RunStore(run).read_run()
    RunStore(run).write_run(record.model_copy(update={role: "elsewhere"}))
    with pytest.raises(SpecError, match=f"the {role} 'elsewhere' is not among"):
        load_run(run)


def test_an_artifact_that_was_only_timed_needs_no_drift_and_no_picture(tmp_path: Path) -> None:
    run = sample(tmp_path / "run", Plan(run={"timed_only": ("openvino-fp32",)}))
    assert "openvino-fp32" in run.rows
    assert "openvino-fp32" not in run.drift
    assert "openvino-fp32" not in run.candidates
    assert run.picture is not None
    assert "openvino-fp32" not in run.picture.predictions


def test_a_run_without_cases_has_neither_drift_nor_picture(tmp_path: Path) -> None:
    run = sample(tmp_path / "run", Plan(origins={}))
    assert (run.drift, run.picture) == ({}, None)


@pytest.mark.parametrize("name", ["", "../elsewhere", "a/b", ".hidden", "a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a file"):
        RunStore(tmp_path / "run").write_row(timing_row(name, host=HOST))
    assert not list(tmp_path.iterdir())
