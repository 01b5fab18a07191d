"""A sweep: its cells, one process for each, what it keeps when it goes on, and that nothing is called emulated unread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_run import Plan as RunPlan
from sample_run import sample, timing_row
from support import tree
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.bench import sweep as module
from edge_latup.bench.case.policies import with_spatial
from edge_latup.bench.isolate import worker_environment
from edge_latup.bench.run import Entry
from edge_latup.bench.sweep import ISAS, SweepPlan, expand, parse_isas, parse_threads, run_sweep
from edge_latup.bench.sweep_store import LoadedSweep, SweepStore, load_sweep
from edge_latup.bench.worker import Job
from edge_latup.errors import EdgeLatupError, InputError, SpecError
from edge_latup.records import read_record, write_record, write_text
from edge_latup.targets.host import cpu_flags
from edge_latup.targets.isa import LEVELS, LIMITS, VERBOSE

needs_avx2 = pytest.mark.skipif(not set(LEVELS["avx2"].flags) <= cpu_flags(), reason="this CPU has no AVX2 to hold OpenVINO to")
QUICK: dict[str, Any] = {"threads": (2,), "min_runs": 2, "min_seconds": 60, "warm_up_runs": 1}


def silent(line: str) -> None:
    return


class FakeWorker:
    """Stands for a worker process: writes a row and tells what oneDNN would; `faults` fails a runtime, `kernels` is what it executed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.faults: dict[str, EdgeLatupError] = {}
        self.kernels: dict[str, int] = {"jit_avx2_f32": 9}
        self.limit: str | None = None

    def __call__(self, job: Job, out: Path, on_line: Callable[[str], None] = silent, environment: Mapping[str, str] | None = None) -> None:
        level = (environment or {}).get(LIMITS[0], "")
        self.calls.append((f"{Path(job.artifact).name}@{job.runtime}", job.threads, level))
        self.environments.append(environment or {})
        if job.runtime in self.faults:
            raise self.faults[job.runtime]
        told = {one.value: one.told for one in LEVELS.values()}.get(level, "all there is")
        on_line(f"onednn_verbose,v1,info,cpu,isa:{self.limit or told}")
        name = Path(job.artifact).name
        write_record(timing_row(name, runtime=job.runtime, threads=job.threads, implementations=self.kernels), out)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    fake = FakeWorker()
    monkeypatch.setattr(module, "run_worker", fake)
    every = frozenset(flag for level in LEVELS.values() for flag in level.flags)
    monkeypatch.setattr(module, "cpu_flags", lambda: every)
    return fake


@pytest.fixture(scope="module")
def entries(tiny_fp32: Artifact, compressed: Compress) -> tuple[Entry, ...]:
    return Entry(artifact=tiny_fp32, runtime="openvino"), Entry(artifact=compressed("dynamic-range", "openvino"), runtime="openvino")


def plan_of(entries: tuple[Entry, ...], **changes: Any) -> SweepPlan:
    return SweepPlan(entries=entries, **QUICK | changes)


def test_a_plan_is_the_product_of_its_axes_native_first(entries: tuple[Entry, ...]) -> None:
    cells = expand(plan_of(entries, threads=(1, 2), isas=("avx2", "native")))
    names = [entry.name for entry in entries]
    assert [(cell.isa, cell.artifact, cell.threads) for cell in cells] == [
        (isa, name, threads) for isa in ("native", "avx2") for name in names for threads in (1, 2)
    ]
    assert len({cell.text for cell in cells}) == len(cells) == 8


def test_comma_lists_are_read() -> None:
    assert parse_threads("1,2,1", 8) == (1, 2)
    assert parse_threads("0", 8) == (8,)
    assert parse_isas("avx2, native") == ("avx2", "native")
    assert parse_isas("all") == ISAS
    for text in ("", "two", "1,", "-1", "1.5"):
        with pytest.raises(InputError, match="is not a number"):
            parse_threads(text, 8)
    with pytest.raises(InputError, match="unknown instruction set 'avx1024'") as caught:
        parse_isas("avx2,avx1024")
    assert "avx512-vnni" in caught.value.hint


def test_each_cell_has_a_process_with_the_variables_of_its_set(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    made = run_sweep(plan_of(entries[:1], isas=ISAS), tmp_path / "sweep", silent)
    assert [(row.status, row.cell.isa) for row in made.rows.values()] == [("measured", isa) for isa in ISAS]
    assert worker.environments[0] == {VERBOSE: "profile_create"}, "native: no limit, but oneDNN tells what it used"
    for isa, environment in zip(ISAS[1:], worker.environments[1:], strict=True):
        assert [environment[name] for name in LIMITS] == [LEVELS[isa].value] * 2
    rows = [row for row in made.rows.values() if row.timing]
    assert [(row.timing.isa, row.timing.emulated) for row in rows if row.timing] == [(isa, isa != "native") for isa in ISAS]
    assert [row.dispatch.limit for row in rows if row.dispatch] == ["all there is", *(LEVELS[isa].told for isa in ISAS[1:])]


def test_limits_of_the_shell_do_not_reach_a_native_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LIMITS, "DNNL_MAX_CPU_ISA"):
        monkeypatch.setenv(name, "SSE41")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = worker_environment({VERBOSE: "profile_create"})
    assert not {*LIMITS, "DNNL_MAX_CPU_ISA"} & set(environment)
    assert (environment["OMP_NUM_THREADS"], environment[VERBOSE]) == ("3", "profile_create")
    assert os.environ[LIMITS[0]] == "SSE41", "this process's own environment is left alone"
    assert LIMITS[0] not in worker_environment()


def test_a_sweep_that_is_started_again_measures_only_what_is_missing(
    entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path
) -> None:  # fmt: skip
    folder = tmp_path / "sweep"
    first = run_sweep(plan_of(entries[:1]), folder, silent)
    kept = tree(folder / "rows")
    assert len(worker.calls) == 1
    lines: list[str] = []
    grown = run_sweep(plan_of(entries, threads=(1, 2), isas=("native", "avx2")), folder, lines.append)
    assert len(worker.calls) == 8, "seven of eight cells were new"
    assert (entries[0].name, 2) not in [(call[0].partition("@")[0], call[1]) for call in worker.calls[1:] if not call[2]]
    assert sum("measured before" in line for line in lines) == 1
    assert {name: tree(folder / "rows")[name] for name in kept} == kept
    assert set(first.rows) < set(grown.rows)
    assert not grown.unfinished
    again = run_sweep(plan_of(entries, threads=(1, 2), isas=("native", "avx2")), folder, silent)
    assert len(worker.calls) == 8
    assert again.rows == grown.rows


def test_an_interrupted_sweep_can_be_read_and_goes_on(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    worker.faults["onnxruntime"] = KeyboardInterrupt()  # type: ignore[assignment]
    both = (entries[0], Entry(artifact=entries[0].artifact, runtime="onnxruntime"))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan_of(both), tmp_path, silent)
    interrupted = load_sweep(tmp_path)
    assert [row.cell.runtime for row in interrupted.rows.values()] == ["openvino"]
    assert interrupted.unfinished == (f"{entries[0].name}@onnxruntime-2-native",)
    worker.faults.clear()
    assert not run_sweep(plan_of(both), tmp_path, silent).unfinished
    assert [call[0] for call in worker.calls] == ["fp32@openvino", "fp32@onnxruntime", "fp32@onnxruntime"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EdgeLatupError("the worker was killed (SIGKILL)"), "failed"),
        (InputError("INT8 kernels give wrong results on one thread", "use two"), "refused"),
    ],
)
def test_a_row_that_cannot_be_measured_says_why_and_is_tried_again(
    error: EdgeLatupError, status: str, entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path
) -> None:
    worker.faults["onnxruntime"] = error
    both = (Entry(artifact=entries[0].artifact, runtime="onnxruntime"), entries[0])
    lines: list[str] = []
    made = run_sweep(plan_of(both), tmp_path, lines.append)
    assert [(row.cell.runtime, row.status, row.reason) for row in made.rows.values()] == [
        ("onnxruntime", status, error.message), ("openvino", "measured", ""),
    ]  # fmt: skip
    assert f"{status}: {error.message}" in lines
    assert [row.cell.runtime for row in made.unmeasured()] == ["onnxruntime"]
    worker.faults.clear()
    assert not run_sweep(plan_of(both), tmp_path, silent).unmeasured()


def test_a_runtime_that_does_not_obey_is_not_even_started(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    ort = Entry(artifact=entries[0].artifact, runtime="onnxruntime")
    made = run_sweep(plan_of((ort,), isas=("native", "avx2")), tmp_path, silent)
    assert [(row.cell.isa, row.status) for row in made.rows.values()] == [("native", "measured"), ("avx2", "refused")]
    assert "MLAS" in made.unmeasured()[0].reason
    assert worker.calls == [("fp32@onnxruntime", 2, "")]
    assert worker.environments == [{}]


@pytest.mark.parametrize("above", [{"jit_avx512_f32": 1}, {"brgconv_avx512_amx_I8": 2}])
def test_a_kernel_above_the_set_costs_the_row_its_name(
    above: dict[str, int], entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path
) -> None:  # fmt: skip
    worker.kernels = worker.kernels | above
    made = run_sweep(plan_of(entries[:1], isas=("native", "avx2")), tmp_path, silent)
    native, emulated = made.rows.values()
    assert native.status == "measured"
    assert (emulated.status, emulated.timing) == ("refused", None)
    assert next(iter(above)) in emulated.reason


def test_a_limit_that_onednn_did_not_take_costs_the_row_its_name(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    worker.limit = "Intel AVX-512 with Intel DL Boost"
    made = run_sweep(plan_of(entries[:1], isas=("avx2", "avx512-vnni")), tmp_path, silent)
    assert [(row.cell.isa, row.status) for row in made.rows.values()] == [("avx2", "refused"), ("avx512-vnni", "measured")]


def test_rows_of_another_artifact_machine_or_version_are_not_mixed(
    entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path, compressed: Compress
) -> None:
    run_sweep(plan_of(entries[:1]), tmp_path, silent)
    store = SweepStore(tmp_path)
    written = tree(tmp_path / "rows")
    manifest = entries[1].artifact.manifest.model_copy(update={"name": entries[0].name})
    impostor = Entry(artifact=replace(entries[1].artifact, manifest=manifest), runtime="openvino")
    with pytest.raises(InputError, match=f"from which the artifact {entries[0].name} differ"):
        run_sweep(plan_of((impostor,)), tmp_path, silent)
    with pytest.raises(InputError, match=f"two artifacts are named {entries[0].name}"):
        run_sweep(plan_of((entries[0], impostor)), tmp_path / "other", silent)
    record = load_sweep(tmp_path).record
    for changes in ({"versions": {"openvino": "1"}}, {"host": record.host.model_copy(update={"cpu": "another"})}):
        write_record(record.model_copy(update=changes), store.sweep_path)
        with pytest.raises(InputError, match="this machine differ|the installed versions differ") as caught:
            run_sweep(plan_of(entries[:1]), tmp_path, silent)
        assert "--out" in caught.value.hint
    assert tree(tmp_path / "rows") == written


def test_a_sweep_is_of_one_size_in_a_folder_of_its_own(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    manifest = entries[1].artifact.manifest
    larger = with_spatial(manifest.spec, manifest.spec.spatial.model_copy(update={"size": (64, 64, 64)}))
    other = replace(entries[1].artifact, manifest=manifest.model_copy(update={"spec": larger}))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    before = tree(tmp_path)
    wrong = [
        ((entries[0], Entry(artifact=other, runtime="openvino")), "sweep", "inputs of different sizes: .* 64x64x64"),
        (entries, "file", "is a file"),
        (entries, "run", "holds a bench run"),
    ]
    for asked, folder, message in wrong:
        with pytest.raises(InputError, match=message):
            run_sweep(plan_of(asked), tmp_path / folder, silent)
    assert (tree(tmp_path), worker.calls) == (before, [])


def test_damaged_records_are_named(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not the folder of a sweep"):
        load_sweep(tmp_path)
    run_sweep(plan_of(entries), tmp_path, silent)
    first, second = sorted((tmp_path / "rows").iterdir())
    write_text(second.read_text(encoding="utf-8"), first)
    with pytest.raises(SpecError, match="is not the row of"):
        load_sweep(tmp_path)
    write_text("{", first)
    with pytest.raises(SpecError, match="is not a valid SweepRow"):
        load_sweep(tmp_path)


def test_drift_is_copied_for_exactly_these_artifacts(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    rows = {"fp32": {"median_ms": 10.0}, entries[1].name: {"median_ms": 5.0}, "elsewhere": {"median_ms": 5.0}}
    shas = {entry.name: entry.artifact.digest for entry in entries}
    rows = {name: row | ({"artifact_sha256": shas[name]} if name in shas else {}) for name, row in rows.items()}
    run = sample(tmp_path / "run", RunPlan(rows=rows, run={"reference": "fp32", "baseline": "fp32"}))
    made = run_sweep(plan_of(entries, drift=run), tmp_path / "sweep", silent)
    assert list(made.drift) == [entries[1].name]
    assert made.drift[entries[1].name] == run.drift[entries[1].name]
    assert made.record.reference == "fp32"
    assert read_record(type(made.record), tmp_path / "sweep" / "sweep.json").drift_run == str(tmp_path / "run")
    other = RunPlan(rows=rows | {"fp32": {"median_ms": 10.0}}, run={"reference": "fp32", "baseline": "fp32"})
    foreign = run_sweep(plan_of(entries, drift=sample(tmp_path / "other-run", other)), tmp_path / "foreign", silent)
    assert foreign.record.reference is None, "an artifact of that name, and other weights"


def test_what_a_run_timed_is_not_timed_again(entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path) -> None:
    """Only natively, of the same weights, and on as many threads."""
    name, other = (entry.name for entry in entries)
    rows = {name: {"artifact_sha256": entries[0].artifact.digest, "threads": 2}, other: {"threads": 2}}
    run = sample(tmp_path / "run", RunPlan(rows=rows, run={"reference": name, "baseline": name}))
    made = run_sweep(plan_of(entries, isas=("native", "avx2"), threads=(1, 2), timed=run), tmp_path / "sweep", silent)
    native = {(row.artifact, row.threads): row for row in made.timings("native")}
    assert len(native) == 4
    assert native[name, 2] == run.rows[name]
    assert [call for call in worker.calls if call[1:] == (2, "")] == [(f"{other}@openvino", 2, "")]
    assert sum(call[2] != "" for call in worker.calls) == 4
    again = run_sweep(plan_of(entries, isas=("native",), threads=(2,), timed=run), tmp_path / "sweep", silent)
    assert again.timings("native") == made.timings("native")


class FakeTurns:
    """Stands for `run_in_turns`: one row a job by `worker`, or `fault`."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.groups: list[tuple[list[str], int, str]] = []
        self.fault: EdgeLatupError | None = None

    def __call__(
        self, jobs: Sequence[tuple[str, Job, Path]], rounds: int, tell: Callable[[str, str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.groups.append(([name for name, _, _ in jobs], rounds, (environment or {}).get(LIMITS[0], "")))
        assert all(job.in_turns for _, job, _ in jobs)
        if self.fault is not None:
            raise self.fault
        for name, job, path in jobs:
            self.worker(job, path, lambda line, name=name: tell(name, line), environment)  # type: ignore[misc]


def test_cells_beside_each_other_take_turns(
    entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = FakeTurns(worker)
    monkeypatch.setattr(module, "run_in_turns", turns)
    names = [entry.name for entry in entries]
    made = run_sweep(plan_of(entries, isas=("native", "avx2"), threads=(1, 2), turns=3), tmp_path / "sweep", silent)
    assert turns.groups == [(names, 3, level) for level in ("", "", "AVX2", "AVX2")]
    assert len(made.rows) == len(worker.calls) == 8
    assert all(row.timing is not None and row.dispatch is not None for row in made.rows.values())
    assert {row.emulated for row in made.timings("avx2")} == {True}
    assert not run_sweep(plan_of(entries, turns=3), tmp_path / "sweep", silent).unfinished
    assert len(turns.groups) == 4, "measured before"


def test_where_turns_fail_each_tells_what_is_wrong_with_it(
    entries: tuple[Entry, ...], worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, lines = FakeTurns(worker), []
    turns.fault = EdgeLatupError("one of them crashed", "")
    monkeypatch.setattr(module, "run_in_turns", turns)
    made = run_sweep(plan_of(entries, turns=3), tmp_path / "sweep", lines.append)
    assert [row.status for row in made.rows.values()] == ["measured", "measured"]
    assert any("not in turns: one of them crashed" in line for line in lines)
    worker.kernels = {"jit_avx512_f32": 9}
    turns.fault = None
    above = run_sweep(plan_of(entries, isas=("avx2",), turns=3), tmp_path / "above", silent)
    assert [row.status for row in above.rows.values()] == ["refused", "refused"]


# What OpenVINO does: processes are started.


@pytest.fixture(scope="module")
def real(entries: tuple[Entry, ...], compressed: Compress, tmp_path_factory: pytest.TempPathFactory) -> LoadedSweep:
    bf16, int8 = (Entry(artifact=compressed(method, "openvino"), runtime="openvino") for method in ("bf16", "int8"))
    folder = tmp_path_factory.mktemp("sweep")
    run_sweep(plan_of((bf16,), isas=("avx2",), threads=(1,)), folder, silent)
    return run_sweep(plan_of((entries[0], int8), isas=("avx2",)), folder, silent)


@needs_avx2
def test_openvino_keeps_to_avx2_when_it_is_told_to(real: LoadedSweep) -> None:
    rows = [row for row in real.rows.values() if row.cell.threads == 2]
    assert [row.status for row in rows] == ["measured", "measured"], [row.reason for row in rows]
    for row in rows:
        assert row.timing is not None
        assert row.dispatch is not None
        assert row.dispatch.limit == "Intel AVX2"
        assert set(row.dispatch.primitives) <= {"avx2", "avx", "sse41", "any"}
        assert row.dispatch.primitives["avx2"] >= 18, "one for each convolution at least"
        assert not any("avx512" in name for name in row.timing.implementations)
        assert sum(row.timing.implementations.values()) == sum(row.timing.executed_kernels.values())


def test_a_precision_that_the_set_has_not_is_a_row_that_says_why(real: LoadedSweep) -> None:
    row = next(iter(real.rows.values()))
    assert (row.cell.threads, row.status) == (1, "refused")
    assert "asked OpenVINO for bf16, it would run f32" in row.reason
