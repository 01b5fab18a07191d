"""A bench run: complete records that read back, honest notes, nothing mixed, nothing half-written taken for a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import NAMES_2023, tree, write_case
from tiny_models import Compress, pointwise_artifact

from edge_latup.artifact import Artifact
from edge_latup.bench import run as bench
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.bench.worker import Job
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import ArtifactError, CaseError, EdgeLatupError, InputError, MissingDependencyError, SpecError
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import segment
from edge_latup.spec import REGIONS, ModelSpec, Size

PSEUDO, REAL = "BraTS-GLI-00001-000", "clinic-7"
QUICK: dict[str, Any] = {"reference": "fp32", "baseline": "fp32", "threads": 1, "min_runs": 3, "min_seconds": 60}


def silent(line: str) -> None:
    return


def plan_of(entries: tuple[Entry, ...], cases: tuple[CaseFiles, ...] = (), **changes: Any) -> Plan:
    return Plan(entries=entries, cases=cases, **QUICK | changes)


@pytest.fixture(scope="module")
def entries(tiny_fp32: Artifact, compressed: Compress) -> tuple[Entry, ...]:
    return Entry(artifact=tiny_fp32, runtime="openvino"), Entry(artifact=compressed("dynamic-range", "openvino"), runtime="openvino")


@pytest.fixture(scope="module")
def cases(tiny_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CaseFiles, ...]:
    """Three phantoms, and two cases that do not say they are phantoms, one of which is known for its pseudo-label."""
    folder = tmp_path_factory.mktemp("real")
    for name in (PSEUDO, REAL):
        write_case(folder / name, NAMES_2023)
    return (*find_cases(tiny_cases), *find_cases(folder))


@pytest.fixture(scope="module")
def made(
    entries: tuple[Entry, ...], cases: tuple[CaseFiles, ...], tiny_reference: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedRun, list[str]]:
    """A run of two artifacts and the timed-only PyTorch reference on five cases, and what it told while it ran."""
    lines: list[str] = []
    timed = Entry(artifact=tiny_reference, runtime="pytorch", timed_only=True)
    plan = plan_of((timed, *entries), cases, baseline="pytorch", command="edge-latup bench", notes=("as a test",))
    store = run_bench(plan, tmp_path_factory.mktemp("bench") / "run", lines.append)
    return load_run(store.folder), lines


def test_every_artifact_has_a_row_of_raw_samples(made: tuple[LoadedRun, list[str]]) -> None:
    run, _ = made
    assert list(run.rows) == ["pytorch", "fp32", "dynamic-range-openvino"]
    assert all(len(row.samples_ms) == 3 for row in run.rows.values())
    assert [row.runtime for row in run.rows.values()] == ["pytorch", "openvino", "openvino"]
    assert all(sum(row.executed_convolutions.values()) == 18 for row in run.rows.values())
    assert (run.reference.artifact, run.baseline.artifact) == ("fp32", "pytorch")


def test_the_run_says_what_was_asked_for_and_where_it_ran(made: tuple[LoadedRun, list[str]]) -> None:
    record = made[0].record
    assert record.command == "edge-latup bench"
    assert record.host.cpu
    assert record.versions["openvino"]
    assert record.timed_only == ("pytorch",)
    assert record.compared == ("fp32", "dynamic-range-openvino")


def test_each_candidate_drifts_on_each_case(made: tuple[LoadedRun, list[str]], cases: tuple[CaseFiles, ...]) -> None:
    run, _ = made
    assert list(run.drift) == ["dynamic-range-openvino"]
    drift = run.drift["dynamic-range-openvino"]
    assert [case.case for case in drift.cases] == [files.name for files in cases]
    assert (drift.reference, drift.executed_float) == ("fp32", "f32")
    for case in drift.cases:
        assert set(case.regions) == set(REGIONS)
        assert all(region.dice_drop is not None for region in case.regions.values())
    assert 0.5 < drift.cases[0].regions["WT"].agreement < 1, "small weights are near, and not the same"


def test_figures_are_those_of_the_label_maps_that_were_kept(
    made: tuple[LoadedRun, list[str]], cases: tuple[CaseFiles, ...], tiny_fp32: Artifact
) -> None:
    run, spec = made[0], tiny_fp32.manifest.spec
    case = read_case(cases[1], spec.modalities)
    with open_session(tiny_fp32) as session:
        label = segment(session, spec, case).label
    assert case.label is not None
    expected = dice_by_region(label, case.label)
    found = {region: value.dice_reference for region, value in run.drift["dynamic-range-openvino"].cases[1].regions.items()}
    assert found == pytest.approx(expected)


def test_the_origin_of_each_case_is_told(made: tuple[LoadedRun, list[str]]) -> None:
    origins = {case.case: case.origin for case in made[0].drift["dynamic-range-openvino"].cases}
    assert [origin for name, origin in origins.items() if name.startswith("phantom")] == ["phantom"] * 3
    assert (origins[REAL], origins[PSEUDO]) == ("real", "real, pseudo-label")


def test_a_case_that_was_trained_on_is_told(made: tuple[LoadedRun, list[str]], cases: tuple[CaseFiles, ...]) -> None:
    first, *others = made[0].record.notes
    assert first == "as a test"
    assert others == [f"{cases[0].name} was used to train the network: its Dice is not a test result, its drift is"]


def test_a_real_case_is_pictured_with_every_prediction(made: tuple[LoadedRun, list[str]]) -> None:
    run, _ = made
    assert run.record.pictured_case == PSEUDO, "the first that is no phantom"
    assert run.picture is not None
    assert list(run.picture.predictions) == ["fp32", "dynamic-range-openvino"]
    assert run.picture.label is not None


def test_progress_names_every_step(made: tuple[LoadedRun, list[str]], cases: tuple[CaseFiles, ...]) -> None:
    _, lines = made
    begun = [line for line in lines if line.startswith("timing ")]
    assert begun == ["timing pytorch on pytorch", "timing fp32 on openvino", "timing dynamic-range-openvino on openvino"]
    assert any(line.startswith("fp32: timed 3 runs in ") for line in lines)
    assert "segmenting 5 cases with fp32" in lines
    for files in cases:
        assert f"dynamic-range-openvino: {files.name}" in lines
        assert f"comparing {files.name}" in lines


def test_nothing_but_records_and_label_maps_is_left(made: tuple[LoadedRun, list[str]]) -> None:
    folder = made[0].folder
    assert sorted(path.name for path in folder.iterdir()) == ["drift", "labels", "pictures", "rows", "run.json"]


def test_a_run_is_never_written_over(made: tuple[LoadedRun, list[str]], entries: tuple[Entry, ...]) -> None:
    before = tree(made[0].folder)
    with pytest.raises(InputError, match="already holds a bench run") as caught:
        run_bench(plan_of(entries), made[0].folder, silent)
    assert "--out" in caught.value.hint
    assert tree(made[0].folder) == before


def test_a_run_is_not_written_into_a_sweep(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="holds a sweep"):
        run_bench(plan_of(entries), tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def fake_rows(monkeypatch: pytest.MonkeyPatch, run: LoadedRun) -> list[Job]:
    """No process is started: timing gives the rows of an earlier run."""
    jobs: list[Job] = []

    def answer(job: Job, out: Path, on_line: Callable[[str], None] = silent) -> None:
        jobs.append(job)
        assert job.batch is not None
        assert np.load(job.batch).dtype == np.float32
        row = next(row for row in run.rows.values() if Path(job.artifact).name == row.artifact)
        out.write_text(row.model_dump_json())

    monkeypatch.setattr(bench, "run_worker", answer)
    return jobs


def test_without_cases_speed_alone_is_measured(
    made: tuple[LoadedRun, list[str]], entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = fake_rows(monkeypatch, made[0])
    run = load_run(run_bench(plan_of(entries, min_runs=7, min_seconds=3), tmp_path / "run", silent).folder)
    assert (run.drift, run.picture, run.record.pictured_case) == ({}, None, None)
    assert [(job.task, job.threads, job.min_runs, job.min_seconds) for job in jobs] == [("time", 1, 7, 3)] * 2
    assert jobs[0].batch == jobs[1].batch, "artifacts of one spec are timed on one input"
    assert not any(Path(str(job.batch)).exists() for job in jobs)


def test_a_failing_artifact_leaves_no_run(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(entries[1].artifact.folder, folder)
    (folder / "model.onnx").write_bytes(b"not ONNX")
    broken = replace(entries[1], artifact=Artifact(folder=folder, manifest=entries[1].artifact.manifest))
    with pytest.raises(EdgeLatupError, match=r"broken on openvino: .*model\.onnx is not the file its manifest recorded"):
        run_bench(plan_of((entries[0], broken)), tmp_path / "run", silent)
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(SpecError, match="is not the folder of a bench run"):
        load_run(tmp_path / "run")


def test_a_calibration_case_is_refused_wherever_it_lies_and_whatever_it_is_called(
    tiny_fp32: Artifact, compressed: Compress, calibration_cases: Path, tmp_path: Path
) -> None:
    original = find_cases(calibration_cases)[1]
    folder = tmp_path / "elsewhere" / "another-name"
    folder.mkdir(parents=True)
    for source in original.images.values():
        shutil.copy(source.path, folder / source.path.name.replace(original.name, "another-name"))
    int8 = Entry(artifact=compressed("int8", "openvino"), runtime="openvino")
    plan = plan_of((Entry(artifact=tiny_fp32, runtime="openvino"), int8), tuple(find_cases(folder)))
    with pytest.raises(CaseError, match="case another-name in .*elsewhere.* was used to calibrate int8-openvino") as caught:
        run_bench(plan, tmp_path / "run", silent)
    assert "evaluate on other cases" in caught.value.hint
    assert not (tmp_path / "run").exists()


def renamed(entry: Entry, name: str) -> Entry:
    manifest = entry.artifact.manifest.model_copy(update={"name": name})
    return replace(entry, artifact=Artifact(folder=entry.artifact.folder, manifest=manifest))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"reference": "fp64"}, "the reference 'fp64' is not among the artifacts: fp32, other", "--reference"),
        ({"baseline": "fp64"}, "the baseline 'fp64' is not among the artifacts", "--baseline"),
        ({"reference": "other"}, "the reference other cannot be timed only", "compared with"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused_before_anything_is_run(
    changes: dict[str, str], message: str, hint: str, entries: tuple[Entry, ...], tmp_path: Path
) -> None:
    timed = replace(renamed(entries[1], "other"), timed_only=True)
    with pytest.raises(InputError, match=message) as caught:
        run_bench(plan_of((entries[0], timed), **changes), tmp_path / "run", silent)
    assert hint in caught.value.hint
    assert not tree(tmp_path)


def test_names_that_would_collide_are_refused(entries: tuple[Entry, ...], cases: tuple[CaseFiles, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two artifacts are named fp32"):
        run_bench(plan_of((entries[0], renamed(entries[1], "fp32"))), tmp_path / "run", silent)
    with pytest.raises(InputError, match=f"two cases are named {cases[0].name}"):
        run_bench(plan_of(entries, (cases[0], replace(cases[1], name=cases[0].name))), tmp_path / "run", silent)
    with pytest.raises(InputError, match="cannot be the name of a file"):
        run_bench(plan_of((entries[0], renamed(entries[1], "../fp32"))), tmp_path / "run", silent)
    assert not tree(tmp_path)


def test_a_runtime_that_is_wrong_or_missing_is_found_before_anything_is_run(
    entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="not for pytorch"):
        run_bench(plan_of((entries[0], replace(entries[1], runtime="pytorch"))), tmp_path / "run", silent)
    monkeypatch.setattr("edge_latup.runtimes.openvino.installed", lambda package: False)
    with pytest.raises(MissingDependencyError, match="openvino is not installed"):
        run_bench(plan_of(entries), tmp_path / "run", silent)
    assert not tree(tmp_path)


def test_a_file_in_the_way_is_named(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=f"{tmp_path / 'run'} is a file"):
        run_bench(plan_of(entries), tmp_path / "run", silent)


def test_a_case_that_cannot_be_read_stops_the_run_before_anything_is_run(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    write_case(tmp_path / "case")
    (files,) = find_cases(tmp_path / "case")
    files.images["t2"].path.write_bytes(b"")
    with pytest.raises(CaseError, match=r"case_t2\.nii\.gz"):
        run_bench(plan_of(entries, (files,)), tmp_path / "run", silent)
    assert not (tmp_path / "run").exists()


def exam(name: str, origin: str, *, trained_on: bool = False, label: bool = True) -> bench._Exam:
    files = CaseFiles(name=name, label=Path("label") if label else None)
    return bench._Exam(files=files, origin=origin, trained_on=trained_on)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exams", "pictured"),
    [
        ([], None),
        ([exam("a", "phantom", label=False), exam("b", "phantom")], "b"),
        ([exam("a", "phantom", label=False)], "a"),
        ([exam("a", "phantom"), exam("b", "real", trained_on=True)], "b"),
        ([exam("a", "real", trained_on=True), exam("b", "phantom"), exam("c with spaces", "real", label=False)], "c with spaces"),
    ],
)
def test_the_pictured_case_is_a_real_one_the_network_has_not_seen_if_there_is_one(exams: list[bench._Exam], pictured: str | None) -> None:
    assert bench._pictured(exams) == pictured


def test_artifacts_of_different_specs_are_timed_on_their_own_inputs(
    tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[ModelSpec] = []

    def draw(spec: ModelSpec, size: Size) -> np.ndarray:
        drawn.append(spec)
        return np.full((1, 3, *size), len(drawn), np.float32)

    monkeypatch.setattr(bench, "parity_input", draw)
    spec = tiny_fp32.manifest.spec.model_copy(update={"modalities": ("t1", "t2", "flair")})
    other = pointwise_artifact(tmp_path / "other", spec=spec)
    paths = bench.write_batches([Entry(artifact=a, runtime="openvino") for a in (tiny_fp32, other, tiny_fp32)], tmp_path)
    assert [np.load(path)[0, 0, 0, 0, 0] for path in paths] == [1, 2, 1]
    assert drawn == [tiny_fp32.manifest.spec, spec]
