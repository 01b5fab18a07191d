"""Beside MONAI, on one case: both sides do the same work, and every figure of the table comes from a record."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import tree
from tiny_models import SIDE, Compress, write_checkpoint

from edge_latup.artifact import Artifact
from edge_latup.bench.case import artifacts, plan, processes, stopwatch, with_monai, worker
from edge_latup.bench.case.columns import COLUMNS, Line, gains
from edge_latup.bench.case.plan import FOREGROUND, FULL, CasePlan, jobs, refuse_bad_plan
from edge_latup.bench.case.policies import POLICIES, OwnPolicy, with_spatial
from edge_latup.bench.case.records import CaseRow, CaseRun
from edge_latup.bench.case.run import compare
from edge_latup.bench.case.store import LoadedComparison, comparison_path, label_map_path, load_comparison, row_path
from edge_latup.bench.case.table import as_data, cautions, tables, to_markdown
from edge_latup.bench.case.with_monai import MonaiSegmenter
from edge_latup.bench.drift import read_prediction
from edge_latup.bench.run import Entry
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import ArtifactError, CaseError, EdgeLatupError, InputError, MissingDependencyError, SpecError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions
from edge_latup.segmentation.case import Segmenter
from edge_latup.segmentation.engine import Clock
from edge_latup.spec import Blending, PostProcess, RegionHead, SlidingWindow

WINDOW = (SIDE, SIDE, SIDE)


@pytest.fixture(scope="module")
def files(tiny_cases: Path) -> CaseFiles:
    """A labelled phantom of 40 x 36 x 32."""
    return find_cases(tiny_cases)[1]


@pytest.fixture(scope="module")
def entries(tiny_fp32: Artifact, compressed: Compress) -> tuple[Entry, ...]:
    return tuple(Entry(artifact=made, runtime="openvino") for made in (tiny_fp32, compressed("int8", "openvino")))


@pytest.fixture
def case_plan(files: CaseFiles, tiny_reference: Artifact, entries: tuple[Entry, ...]) -> CasePlan:
    return CasePlan(files=files, reference=tiny_reference, entries=entries, threads=2)


@pytest.fixture(scope="module")
def made(files: CaseFiles, tiny_reference: Artifact, entries: tuple[Entry, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison by two policies."""
    out = tmp_path_factory.mktemp("comparison")
    asked = CasePlan(
        files=files, reference=tiny_reference, entries=entries, policies=("brain-crop", "head-windows", "sliding-window"), repeats=1,
        threads=2, command="edge-latup bench-case",
    )  # fmt: skip
    compare(asked, out, lambda _: None)
    return out


@pytest.fixture
def run(made: Path) -> LoadedComparison:
    return load_comparison(made)


def both(files: CaseFiles, reference: Artifact, folder: Path, blending: Blending, side: int = SIDE) -> tuple[np.ndarray, np.ndarray, int]:
    """The label maps of MONAI and of our engine in PyTorch on the same windows, and how many MONAI ran."""
    spec = with_spatial(reference.manifest.spec, SlidingWindow(size=(side, side, side), blending=blending, skip_air=False))
    options = SessionOptions(threads=1, input_size=(side, side, side))
    with open_session(reference, "pytorch", options) as session:
        monai = MonaiSegmenter(session, spec, foreground=False)
        monai.segment_files(files, folder / "monai.nii.gz", Clock())
    with Segmenter(reference, runtime="pytorch", options=SessionOptions(threads=1), spec=spec) as segmenter:
        assert segmenter.segment_files(files, folder / "ours.nii.gz").record.windows_run == monai.windows
    case = read_case(files, spec.modalities)
    return read_prediction(folder / "monai.nii.gz", case), read_prediction(folder / "ours.nii.gz", case), monai.windows


@pytest.mark.parametrize("side", [SIDE, 24])
def test_the_same_windows_of_the_same_network_give_the_same_label_map_bit_for_bit(
    files: CaseFiles, tiny_reference: Artifact, tmp_path: Path, side: int
) -> None:
    monai, ours, windows = both(files, tiny_reference, tmp_path, "constant", side)
    assert windows > 1
    assert len(np.unique(ours)) == 4
    np.testing.assert_array_equal(monai, ours)


def test_gaussian_weights_are_those_of_monai(files: CaseFiles, tiny_reference: Artifact, tmp_path: Path) -> None:
    """But for the floor under them: ours is a share of the largest weight, which in so small a window is 0.91 and not 1."""
    monai, ours, _ = both(files, tiny_reference, tmp_path, "gaussian")
    constant, _, _ = both(files, tiny_reference, tmp_path, "constant")
    assert (monai != ours).mean() < 0.003
    assert (constant != ours).mean() > 10 * (monai != ours).mean(), "the weights decide something here"


def test_rows_come_in_their_order_with_commands_after_what_they_repeat(run: LoadedComparison) -> None:
    assert list(run.rows) == [
        "fp32-brain-crop", "fp32-brain-crop-command", "fp32-head-windows", "fp32-sliding-window",
        "int8-openvino-brain-crop", "int8-openvino-brain-crop-command", "int8-openvino-head-windows", "int8-openvino-sliding-window",
        "pytorch-brain-crop", FOREGROUND, FULL,
    ]  # fmt: skip
    assert [len(row.runs) for row in run.rows.values()] == [2] * 9 + [1, 1]


def test_a_row_holds_what_its_figures_come_from(run: LoadedComparison, entries: tuple[Entry, ...], files: CaseFiles) -> None:
    row = run.rows["int8-openvino-head-windows"]
    assert (row.artifact_sha256, row.precision, row.runtime, row.executed_float) == (entries[1].artifact.digest, "int8", "openvino", "f32")
    assert set(row.executed_convolutions) <= {"i8", "u8"}
    assert isinstance(row.spec.spatial, SlidingWindow)
    assert (row.spec.spatial.skip_air, row.spec.spatial.overlap) == (True, 0.25)
    assert row.input_shape == (1, 3, *WINDOW)
    assert 0 < row.windows_run <= row.windows == run.full.windows == run.full.windows_run
    for one in row.runs:
        assert {"read", "normalise", "load", "infer", "blend", "write", "total"} <= set(one.seconds)
        assert one.total >= one.seconds["infer"] > 0
    assert row.runs[0].seconds["load"] > row.runs[1].seconds["load"], "the model is loaded once"
    assert 2**20 < row.runs[0].peak_rss_bytes <= row.peak_rss_bytes
    assert run.record.inputs["flair"].name == files.images["flair"].path.name
    assert {"monai", "torch", "openvino"} <= set(row.versions)


def test_a_command_is_a_process_with_its_own_start_and_the_same_label_map(run: LoadedComparison) -> None:
    command, worker_row = run.rows["fp32-brain-crop-command"], run.rows["fp32-brain-crop"]
    assert command.runs[-1].label_map_sha256 == worker_row.runs[-1].label_map_sha256
    assert all(one.seconds["start"] > 0 for one in command.runs)
    assert command.p50_s > worker_row.p50_s
    assert (command.engine, command.executed_float) == ("command", None)


def test_monais_stages_add_up(run: LoadedComparison) -> None:
    (once,) = run.full.runs
    assert sum(seconds for stage, seconds in once.seconds.items() if stage != "total") == pytest.approx(once.total, rel=0.05)
    assert run.full.p50_s == once.total - once.seconds["load"], "what ran once is counted without loading"


def test_agreement_is_with_fp32_of_the_same_policy_and_windows_agree_with_monai(run: LoadedComparison) -> None:
    against = {found.row: found.against for found in run.record.agreements}
    assert against == {
        "fp32-brain-crop-command": "fp32-brain-crop", "int8-openvino-brain-crop": "fp32-brain-crop",
        "int8-openvino-brain-crop-command": "fp32-brain-crop", "pytorch-brain-crop": "fp32-brain-crop",
        "int8-openvino-head-windows": "fp32-head-windows", "int8-openvino-sliding-window": "fp32-sliding-window",
        "fp32-sliding-window": FULL, FOREGROUND: FULL,
    }  # fmt: skip
    same = run.agreement("fp32-sliding-window")
    assert same is not None
    assert min(same.dice.values()) > 0.999, "OpenVINO's last bits may decide a tie"
    assert set(run.record.accuracy) == set(run.rows)


def test_figures_are_derived_from_the_records(run: LoadedComparison) -> None:
    """Halve a row's seconds on record, and its ratios double: no figure has another source."""
    name = "fp32-brain-crop"

    def ratios(of: LoadedComparison) -> tuple[object, ...]:
        line = Line(row=of.rows[name], run=of)
        return tuple(column.value(line) for column in COLUMNS if column.name in ("ratio_full", "ratio_foreground"))

    row = run.rows[name]
    halved = tuple(one.model_copy(update={"seconds": {key: value / 2 for key, value in one.seconds.items()}}) for one in row.runs)
    changed = dataclasses.replace(run, rows={**run.rows, name: row.model_copy(update={"runs": halved})})
    assert ratios(run) == (run.full.p50_s / row.p50_s, run.foreground.p50_s / row.p50_s)
    assert ratios(changed) == pytest.approx([2 * ratio for ratio in ratios(run)])  # type: ignore[operator]


def test_the_parts_of_a_gain_multiply_to_it(run: LoadedComparison) -> None:
    found = {gain.row: gain for gain in gains(run)}
    assert set(found) == {
        "fp32-brain-crop", "int8-openvino-brain-crop", "fp32-sliding-window", "int8-openvino-sliding-window"
    }, "PyTorch slid no windows that hold head alone, and a command is not our engine's speed"  # fmt: skip
    for name, gain in found.items():
        assert gain.total == pytest.approx(gain.voxels * gain.runtime * gain.precision)
        assert gain.total == pytest.approx(run.full.p50_s / run.rows[name].p50_s)
    assert found["fp32-brain-crop"].precision == found["fp32-sliding-window"].precision == 1
    assert found["int8-openvino-sliding-window"].voxels == 1
    assert found["int8-openvino-brain-crop"].voxels == run.full.p50_s / run.rows["pytorch-brain-crop"].p50_s


def test_tables_show_every_row(run: LoadedComparison) -> None:
    main, apart = tables(run)
    assert [row[0] for row in main.rows] == list(run.rows)
    assert len(apart.rows) == 4
    text = to_markdown(run)
    assert run.record.host.cpu in text
    assert "`edge-latup bench-case`" in text
    assert "| monai-full |" in text
    assert "x full: p50 of MONAI on the full volume divided by this row's" in text
    data = json.loads(json.dumps(as_data(run)))
    assert [row["row"] for row in data["rows"]] == list(run.rows)
    assert data["rows"][-1]["ratio_full"] == 1


def test_what_disturbs_the_figures_is_told(run: LoadedComparison) -> None:
    row = run.full.model_copy(update={"load_average": 9.0, "other_busy": None, "precision": "int8"})
    other = row.runs[0].model_copy(update={"label_map_sha256": "0" * 64})
    changed = dataclasses.replace(run, rows={FULL: row.model_copy(update={"runs": (row.runs[0], other)})})
    told = " ".join(cautions(changed))
    for text in ("load average 9.0, 2 threads", "1 warm runs", "different label maps", "executed no convolution in i8"):
        assert text in told
    bf16 = dataclasses.replace(run, rows={FULL: run.full.model_copy(update={"precision": "bf16"})})
    assert "monai-full: declared BF16, executed f32" in cautions(bf16)


def copied(made: Path, folder: Path) -> Path:
    for path in (comparison_path(made), *(made / "rows").iterdir()):
        target = folder / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


BREAK: dict[str, tuple[Callable[[Path], object], str]] = {
    "no comparison": (lambda out: comparison_path(out).unlink(), "comparison.json does not exist"),
    "MONAI's row deleted": (lambda out: row_path(out, FULL).unlink(), "monai-full.json does not exist"),
    "a row damaged": (lambda out: row_path(out, FULL).write_text("{"), "monai-full.json is not a valid CaseRow"),
    "a row of another": (lambda out: row_path(out, FOREGROUND).replace(row_path(out, FULL)) and copied_back(out), "not of 'monai-full'"),
    "another label map": (lambda out: other_label_map(out), "compares another label map"),
    "an unknown row": (lambda out: without_row(out), "'monai-foreground', which is not among its rows"),
}


def copied_back(out: Path) -> None:
    row_path(out, FOREGROUND).write_bytes(row_path(out, FULL).read_bytes())


def other_label_map(out: Path) -> None:
    row = read_record(CaseRow, row_path(out, FULL))
    runs = tuple(one.model_copy(update={"label_map_sha256": "0" * 64}) for one in row.runs)
    write_record(row.model_copy(update={"runs": runs}), row_path(out, FULL))


def without_row(out: Path) -> None:
    record = load_comparison(out).record
    rows = tuple(name for name in record.rows if name != FOREGROUND)
    write_record(record.model_copy(update={"rows": rows}), comparison_path(out))


@pytest.mark.parametrize("name", BREAK)
def test_records_that_do_not_belong_together_give_no_table(made: Path, tmp_path: Path, name: str) -> None:
    change, message = BREAK[name]
    folder = copied(made, tmp_path)
    change(folder)
    with pytest.raises(SpecError, match=message) as caught:
        load_comparison(folder)
    assert "edge-latup bench-case" in caught.value.hint


def test_without_monai_nothing_begins(case_plan: CasePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_monai, "installed", lambda package: package != "monai")
    with pytest.raises(MissingDependencyError, match="needs MONAI") as caught:
        compare(case_plan, tmp_path / "out", lambda _: None)
    assert caught.value.hint == "in edge-latup's folder: pip install -c constraints.txt '.[compare]'"
    assert not tree(tmp_path)


def test_monai_can_be_left_out_and_need_not_be_installed(
    case_plan: CasePlan, entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_monai, "installed", lambda package: package != "monai")
    policies: tuple[OwnPolicy, ...] = ("centre-crop", "sliding-window")
    plan = dataclasses.replace(case_plan, entries=entries[:1], policies=policies, repeats=1, monai_runs=0)
    run = compare(plan, tmp_path / "out", lambda _: None)
    assert list(run.rows) == ["fp32-centre-crop", "fp32-centre-crop-command", "fp32-sliding-window", "pytorch-centre-crop"]
    assert (run.full, run.foreground, gains(run)) == (None, None, [])
    assert {found.against for found in run.record.agreements} == {"fp32-centre-crop"}
    (main,) = tables(run)
    assert [row[0] for row in main.rows] == list(run.rows)
    assert as_data(run)["rows"][0]["ratio_full"] is None
    assert "monai-" not in to_markdown(run)


def changed(artifact: Artifact, **fields: object) -> Artifact:
    """The same artifact with other fields in its manifest, in memory alone."""
    return dataclasses.replace(artifact, manifest=artifact.manifest.model_copy(update=fields))


def test_bad_plans_are_refused_before_anything_runs(
    case_plan: CasePlan, entries: tuple[Entry, ...], made: Path, tmp_path: Path, tiny_fp32: Artifact
) -> None:
    (tmp_path / "file").write_text("")
    spec = tiny_fp32.manifest.spec
    other = changed(tiny_fp32, spec=spec.model_copy(update={"orientation": "RAS"}))
    step = tiny_fp32.manifest.recipe[0].model_copy(update={"parameters": {"checkpoint_sha256": "0" * 64}})
    foreign = changed(tiny_fp32, recipe=(step,))
    wrong: list[tuple[dict[str, object], Path, str]] = [
        ({"entries": (*entries, entries[0])}, tmp_path / "out", "two rows are named fp32-brain-crop, fp32-centre-crop"),
        ({"entries": entries[1:]}, tmp_path / "out", "none of the artifacts is FP32"),
        ({"entries": (Entry(artifact=other, runtime="openvino"),)}, tmp_path / "out", "have different model specs"),
        ({"entries": (Entry(artifact=foreign, runtime="openvino"),)}, tmp_path / "out", "come from different checkpoints"),
        ({"reference": tiny_fp32}, tmp_path / "out", "not for pytorch"),
        ({"blending": "gaussian_nnunet"}, tmp_path / "out", "as nnU-Net does, which MONAI does not"),
        ({}, made, "already holds a comparison"),
        ({}, tmp_path / "file", "is a file"),
    ]
    for changes, out, message in wrong:
        with pytest.raises((InputError, ArtifactError), match=message):
            refuse_bad_plan(dataclasses.replace(case_plan, **changes), out)  # type: ignore[arg-type]


def test_what_monai_does_not_do_is_not_compared(tiny_reference: Artifact) -> None:
    spec = tiny_reference.manifest.spec
    with pytest.raises(InputError, match="shown in 2 views"):
        with_monai.check_plain(spec.model_copy(update={"views": ("identity", "mirror")}))
    with pytest.raises(InputError, match="has a threshold"):
        with_monai.check_plain(spec.model_copy(update={"post_process": PostProcess(threshold=0.5)}))
    with pytest.raises(InputError, match="gives regions"):
        with_monai.check_plain(spec.model_copy(update={"regions": RegionHead(order=("WT",))}))
    with pytest.raises(TypeError, match="centre-crop has no windows"):
        MonaiSegmenter(None, spec, foreground=False)  # type: ignore[arg-type]


def test_a_case_that_calibrated_an_artifact_is_refused(
    case_plan: CasePlan, calibration_cases: Path, tmp_path: Path
) -> None:  # fmt: skip
    seen = dataclasses.replace(case_plan, files=find_cases(calibration_cases)[0])
    with pytest.raises(CaseError, match="was used to calibrate int8-openvino"):
        compare(seen, tmp_path / "out", lambda _: None)
    assert not tree(tmp_path)


def test_a_foreground_is_pasted_back_where_it_was(tiny_reference: Artifact) -> None:
    spec = with_spatial(tiny_reference.manifest.spec, SlidingWindow(size=WINDOW))
    raw = np.zeros((3, 20, 18, 16), np.float32)
    raw[1, 4:9, 2:17, 3:5] = 7
    box = MonaiSegmenter(None, spec, foreground=True)._box(raw)  # type: ignore[arg-type]
    assert (box.start, box.size, box.shape) == ((4, 2, 3), (5, 15, 2), (20, 18, 16))
    np.testing.assert_array_equal(box.paste(box.view(raw)), raw)


def test_every_policy_has_monais_window(case_plan: CasePlan, tmp_path: Path) -> None:
    found = {job.policy: job.spec.spatial for job in jobs(case_plan, tmp_path)}
    assert set(found) == {*POLICIES, "full", "foreground"}
    assert all(spatial.size == WINDOW for spatial in found.values())
    assert found["sliding-window"] == found["full"] == found["foreground"]


def test_a_command_is_only_made_where_it_does_the_same(case_plan: CasePlan, tiny_fp32: Artifact, tmp_path: Path) -> None:
    commands = [job.name for job in jobs(case_plan, tmp_path) if plan.has_command(job, case_plan.entries)]
    assert commands == ["fp32-centre-crop", "fp32-brain-crop", "int8-openvino-centre-crop", "int8-openvino-brain-crop"]
    larger = with_spatial(tiny_fp32.manifest.spec, tiny_fp32.manifest.spec.spatial.model_copy(update={"size": (24, 24, 24)}))
    entry = Entry(artifact=changed(tiny_fp32, spec=larger), runtime="openvino")
    other = dataclasses.replace(case_plan, entries=(entry,))
    assert not any(plan.has_command(job, other.entries) for job in jobs(other, tmp_path) if job.policy == "centre-crop")


@pytest.mark.parametrize(("repeats", "seconds", "runs"), [(0, 100.0, 1), (3, 100.0, 4), (3, 0.5, 2), (9, 2.5, 4)])
def test_warm_runs_end_with_their_number_or_their_seconds(
    case_plan: CasePlan, tmp_path: Path, repeats: int, seconds: float, runs: int
) -> None:
    job = jobs(case_plan, tmp_path)[0].model_copy(update={"repeats": repeats, "seconds": seconds})
    one = CaseRun(seconds={"total": 1.0}, peak_rss_bytes=1, label_map_sha256="0" * 64)
    assert len(worker.repeated(job, lambda: one)) == runs


def test_a_worker_that_fails_has_its_own_words_passed_on(case_plan: CasePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs(case_plan, tmp_path)[0].model_copy(update={"artifact": str(tmp_path / "nothing")})
    with pytest.raises(InputError, match=r"^fp32-centre-crop: .* is not an artifact") as caught:
        processes.run_case(job)
    assert "edge-latup export" in caught.value.hint
    monkeypatch.setattr(processes, "START_WORKER", "raise RuntimeError('boom')")
    with pytest.raises(EdgeLatupError, match=r"fp32-centre-crop ended with code 1: RuntimeError: boom"):
        processes.run_case(job)


def test_the_stopwatch_times_and_weighs_the_command_alone(tmp_path: Path) -> None:
    ballast = np.ones(40 * 2**20, np.uint8)  # this process is larger than what it starts
    code = "import time; held = bytearray(30 << 20); time.sleep(0.2)"
    timing = tmp_path / "timing.json"
    processes._run_checked([sys.executable, "-I", "-S", stopwatch.__file__, str(timing), sys.executable, "-c", code], "x")
    timed = read_record(processes.Timed, timing)
    assert 0.2 < timed.seconds < 20
    assert 30 * 2**20 < timed.peak_rss_bytes < 70 * 2**20
    assert ballast.all()


@pytest.mark.parametrize(("code", "status"), [("import sys; sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_stopwatch_ends_as_the_command_did(code: str, status: int, tmp_path: Path) -> None:
    assert stopwatch.main([str(tmp_path / "timing.json"), sys.executable, "-c", code]) == status


def demo_run(demo: Path, name: str, *made: str) -> Path:
    for artifact in made:
        folder = demo / name / "artifacts" / artifact
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return demo / name / "artifacts"


def test_the_newest_complete_demo_run_is_taken(tmp_path: Path) -> None:
    assert artifacts.newest_artifacts(tmp_path / "nowhere") is None
    demo_run(tmp_path, "20260101T000000Z", "pytorch", "fp32", "int8")
    newest = demo_run(tmp_path, "20260201T000000Z", "pytorch", "fp32", "int8")
    demo_run(tmp_path, "20260301T000000Z", "pytorch", "fp32")
    assert artifacts.newest_artifacts(tmp_path) == newest


def test_artifacts_are_made_as_the_demo_makes_them(calibration_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "demo"

    def link(folder: Path, *arguments: object) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(calibration_cases)

    monkeypatch.setattr(artifacts, "make_phantoms", link)
    folder = artifacts.make_artifacts(demo, write_checkpoint(tmp_path / "checkpoint"), lambda _: None)
    assert artifacts.newest_artifacts(demo) == folder
    opened = artifacts.open_artifacts(folder)
    assert opened.reference.manifest.name == "pytorch"
    assert [entry.name for entry in opened.entries if "bf16" not in entry.name] == ["fp32", "int8"]


def test_label_maps_are_kept(run: LoadedComparison, made: Path) -> None:
    assert all(label_map_path(made, name).is_file() for name in run.rows)
