"""A worker measures in a process of its own; however it ends, its caller learns why."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import NAMES_2021, canonical_label, tree, write_case
from tiny_models import CONVOLUTIONS, SIDE, Compress, some_batch

from edge_latup.artifact import Artifact
from edge_latup.bench import isolate, worker
from edge_latup.bench.case.policies import with_spatial
from edge_latup.bench.drift import read_prediction
from edge_latup.bench.isolate import run_worker
from edge_latup.bench.records import TimingRow
from edge_latup.bench.worker import SESSION_NAME, Job, SegmentSession
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import EdgeLatupError, InputError, MissingDependencyError, SpecError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import Batch, Kernel, SessionOptions
from edge_latup.runtimes.fresh import failure
from edge_latup.segmentation.case import Segmenter
from edge_latup.segmentation.engine import prepare, segment
from edge_latup.segmentation.memory import process_bytes
from edge_latup.spec import BrainCrop

RUNS = 4


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "batch.npy"
    np.save(path, some_batch())
    return path


def timing_job(made: Artifact, batch_file: Path, **changes: object) -> Job:
    fields = {"task": "time", "artifact": str(made.folder), "runtime": made.manifest.runtimes[0], "threads": 2,
              "min_runs": RUNS, "min_seconds": 60, "batch": str(batch_file)}  # fmt: skip
    return Job.model_validate(fields | changes)


@pytest.fixture(scope="module")
def row(compressed: Compress, batch_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TimingRow:
    """Of the static int8 artifact on OpenVINO, from a worker process."""
    out = tmp_path_factory.mktemp("row") / "row.json"
    run_worker(timing_job(compressed("int8", "openvino"), batch_file), out)
    return read_record(TimingRow, out)


def test_raw_samples_are_kept_and_are_plausible(row: TimingRow) -> None:
    assert len(row.samples_ms) == RUNS
    assert all(0.01 < sample < 10_000 for sample in row.samples_ms)
    assert row.warm_up_runs == 3, "two, after the first inference"
    assert row.first_inference_ms > 0
    assert 1 < row.load_ms < 60_000
    assert min(row.samples_ms) <= row.p50_ms <= row.p90_ms <= max(row.samples_ms)


def test_memory_is_that_of_the_process_and_of_the_model(row: TimingRow) -> None:
    assert row.peak_rss_bytes >= row.rss_delta_bytes > 0
    assert 50 * 2**20 < row.peak_rss_bytes < 2 * 2**30, "a Python process with OpenVINO in it"
    assert row.rss_delta_bytes < row.peak_rss_bytes / 2, "most of it is imports, for so small a model"


def test_the_row_says_what_was_executed_where(row: TimingRow, compressed: Compress) -> None:
    made = compressed("int8", "openvino")
    assert (row.artifact, row.artifact_sha256) == (made.manifest.name, made.digest)
    assert (row.runtime, row.precision, row.storage, row.format) == ("openvino", "int8", "int8", "openvino-ir")
    assert row.executed_float == "f32"
    assert sum(row.executed_convolutions.values()) == CONVOLUTIONS
    assert set(row.executed_convolutions) <= {"i8", "u8"}
    assert sum(row.executed_kernels.values()) > CONVOLUTIONS
    assert row.input_shape == (1, 3, SIDE, SIDE, SIDE)
    assert (row.threads, row.model_bytes) == (2, made.manifest.model_size)
    assert row.host.cpu
    assert row.runtime_version
    assert row.started.endswith("+00:00")


class Clock:
    """A session each of whose runs takes a second, as the clock tells it."""

    def __init__(self) -> None:
        self.runs = 0

    def infer(self, batch: Batch) -> Batch:
        self.runs += 1
        return batch

    def now(self) -> int:
        return self.runs * 1_000_000_000


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "samples"), [(20, 60, 20), (20, 5, 5), (20, 4.5, 5), (1, 60, 2), (20, 0, 2), (3, 3, 3)]
)
def test_runs_are_timed_until_there_are_enough_or_time_is_up(
    min_runs: int, min_seconds: float, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter_ns", clock.now)
    job = Job(task="time", artifact="a", runtime="openvino", threads=1, warm_up_runs=3, min_runs=min_runs, min_seconds=min_seconds)
    assert worker._time_in_a_row(clock, some_batch(), job).samples == (1000.0,) * samples  # type: ignore[arg-type]
    assert clock.runs == samples


@pytest.mark.parametrize(("first", "asked", "runs"), [(1.0, 3, 3), (0.0, 20, 5), (4.5, 2, 1), (5.0, 2, 0), (19.0, 2, 0)])
def test_a_slow_network_is_warm_after_fewer_runs(first: float, asked: int, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now() / 1e9)
    job = Job(task="time", artifact="a", runtime="openvino", threads=1, warm_up_runs=asked)
    assert worker._warm_up(clock, some_batch(), job, first) == runs  # type: ignore[arg-type]
    assert clock.runs == runs


@pytest.mark.parametrize(
    "operation", ["Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose", "Convolution", "Deconvolution", "Conv3d"]
)
def test_every_runtimes_convolution_is_one(operation: str) -> None:
    assert worker._is_convolution(Kernel(name="x", operation=operation, precision="f32", implementation="x"))


@pytest.mark.parametrize("operation", ["Convert", "MatMul", "Reorder", "Concat", "MVN"])
def test_what_does_not_convolve_is_none(operation: str) -> None:
    assert not worker._is_convolution(Kernel(name="x", operation=operation, precision="f32", implementation="x"))


def test_memory_counts_as_nothing_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise PermissionError

    assert process_bytes("VmRSS") > 0
    assert process_bytes("VmNothing") == 0
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert process_bytes("VmRSS") == 0
    worker._reset_peak()


def test_label_maps_are_those_of_the_engine(tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    found = find_cases(tiny_cases)
    job = Job(task="segment", artifact=str(tiny_fp32.folder), runtime="openvino", threads=1, cases=tuple(str(c.path) for c in found))
    lines: list[str] = []
    run_worker(job, tmp_path, lines.append)
    assert lines == [files.name for files in found]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(f"{files.name}.nii.gz" for files in found), SESSION_NAME])
    assert read_record(SegmentSession, tmp_path / SESSION_NAME).float_precision == "f32"
    with open_session(tiny_fp32) as session:
        for files in found:
            case = read_case(files, tiny_fp32.manifest.spec.modalities)
            written = read_prediction(tmp_path / f"{files.name}.nii.gz", case)
            np.testing.assert_array_equal(written, segment(session, tiny_fp32.manifest.spec, case).label)


def test_heads_of_any_size_are_segmented_with_an_artifact_of_one(tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    """As `edge-latup segment` does it under the policy brain-crop."""
    spec = with_spatial(tiny_fp32.manifest.spec, BrainCrop(size=tiny_fp32.manifest.spec.spatial.size))
    artifact = replace(tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"spec": spec}))
    found = find_cases(tiny_cases)
    sizes = {prepare(read_case(files, spec.modalities), spec).input_size for files in found}
    assert sizes != {spec.spatial.size}
    job = Job(task="segment", artifact=str(artifact.folder), runtime="openvino", threads=2, cases=tuple(str(one.path) for one in found))
    worker.segment_cases(job, artifact, tmp_path)
    with Segmenter(artifact, options=SessionOptions(threads=2)) as segmenter:
        for files in found:
            segmenter.segment_files(files, tmp_path / "other.nii.gz")
            case = read_case(files, spec.modalities)
            written, expected = (read_prediction(tmp_path / name, case) for name in (f"{files.name}.nii.gz", "other.nii.gz"))
            np.testing.assert_array_equal(written, expected)


def test_a_label_in_other_numbers_than_its_names_suggest_decides_the_numbers(tiny_fp32: Artifact, tmp_path: Path) -> None:
    """Files named as in 2021, label values as in 2023: the label map is read in the numbers it was written in."""
    folder = write_case(tmp_path / "case", NAMES_2021)
    job = Job(task="segment", artifact=str(tiny_fp32.folder), runtime="openvino", threads=1, cases=(str(folder),))
    (tmp_path / "out").mkdir()
    worker.segment_cases(job, tiny_fp32, tmp_path / "out")
    case = read_case(find_cases(folder)[0], tiny_fp32.manifest.spec.modalities)
    assert case.convention == "brats-2023"
    np.testing.assert_array_equal(case.label, canonical_label())
    assert read_prediction(tmp_path / "out" / "case.nii.gz", case).max() == 3


def test_a_case_that_holds_others_below_it_is_found(tiny_fp32: Artifact, tmp_path: Path) -> None:
    outer = write_case(tmp_path / "outer")
    write_case(outer / "inner")
    assert worker.case_files(outer).name == "outer"
    (tmp_path / "empty").mkdir()
    write_case(tmp_path / "empty" / "case")
    with pytest.raises(InputError, match="there is no case at"):
        worker.case_files(tmp_path / "empty")


def test_a_timing_job_without_an_input_is_refused(tiny_fp32: Artifact) -> None:
    job = Job(task="time", artifact=str(tiny_fp32.folder), runtime="openvino", threads=1)
    with pytest.raises(InputError, match="a timing job needs a batch"):
        worker.time_model(job, tiny_fp32)


def test_errors_go_to_stderr_as_json_with_their_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(Job(task="time", artifact=str(tmp_path / "nothing"), runtime="openvino", threads=1), tmp_path / "job.json")
    assert worker.main([str(tmp_path / "job.json"), str(tmp_path / "row.json")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    told = json.loads(captured.err.splitlines()[-1])
    assert "nothing is not an artifact" in told["message"]
    assert "edge-latup export" in told["hint"]


def test_a_damaged_job_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text('{"tusk": "time"}')
    assert worker.main([str(tmp_path / "job.json"), str(tmp_path / "row.json")]) == SpecError.exit_code
    assert "did you mean 'task'" in capsys.readouterr().err


def missing_job(folder: Path) -> Job:
    return Job(task="time", artifact=str(folder / "nothing"), runtime="openvino", threads=1, batch="none")


def test_a_worker_that_fails_has_its_own_words_passed_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^nothing on openvino: .* is not an artifact") as caught:
        run_worker(missing_job(tmp_path), tmp_path / "row.json")
    assert caught.value.exit_code == 2
    assert "edge-latup export" in caught.value.hint
    assert not tree(tmp_path)


def test_a_missing_runtime_keeps_its_exit_code() -> None:
    error = failure(isolate.named(missing_job(Path("x"))), 3, 'warning: something\n\n{"message": "no openvino", "hint": "pip install"}\n')
    assert isinstance(error, MissingDependencyError)
    assert (error.message, error.hint, error.exit_code) == ("nothing on openvino: no openvino", "pip install", 3)


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"was killed \(SIGKILL\): the machine may have run out of memory", "close other programs"),
        ("import os; os.abort()", "was ended by SIGABRT", ""),
        ("raise RuntimeError('boom')", "ended with code 1: RuntimeError: boom", "Traceback"),
        ("import sys; sys.exit(7)", "ended with code 7 and said nothing", ""),
        ("import sys; sys.exit('[1, 2]')", r"ended with code 1: \[1, 2\]", "last lines"),
    ],
    ids=["killed", "aborted", "exception", "silent", "JSON of another kind"],
)
def test_a_crash_is_an_error_that_tells_how_it_ended(
    code: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "START", code)
    with pytest.raises(EdgeLatupError, match=message) as caught:
        run_worker(missing_job(tmp_path), tmp_path / "row.json")
    assert "the process for nothing on openvino" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["edge_latup", "json", "numpy"])
def test_a_folder_in_the_working_directory_shadows_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the repository's own root, where ./edge_latup is not the installed package."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not an artifact"):
        run_worker(missing_job(tmp_path), Path("row.json"))


def test_relative_paths_are_those_of_the_caller(
    tiny_fp32: Artifact, batch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").symlink_to(tiny_fp32.folder)
    (tmp_path / "batch.npy").symlink_to(batch_file)
    monkeypatch.chdir(tmp_path)
    run_worker(timing_job(tiny_fp32, batch_file, artifact="artifact", batch="batch.npy", min_runs=2), Path("row.json"))
    assert read_record(TimingRow, tmp_path / "row.json").artifact == "fp32"


def test_the_worker_sees_the_environment_and_the_same_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "START", "import os, sys; print(sys.executable); print(os.environ['MARK'])")
    monkeypatch.setitem(os.environ, "MARK", "é")
    lines: list[str] = []
    run_worker(missing_job(tmp_path), tmp_path / "row.json", lines.append)
    assert lines == [sys.executable, "é"]
