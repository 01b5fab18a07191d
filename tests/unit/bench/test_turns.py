"""Rows in turns: each in a process of its own, one run a round, and nothing counts when one of them fails."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_models import CONVOLUTIONS, Compress, some_batch

from edge_latup.artifact import Artifact
from edge_latup.bench import isolate, turns
from edge_latup.bench.isolate import Worker
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import load_run
from edge_latup.bench.turns import run_in_turns
from edge_latup.bench.worker import READY, Job
from edge_latup.errors import EdgeLatupError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROUNDS = 5


@pytest.fixture(scope="module")
def entries(tiny_fp32: Artifact, tiny_reference: Artifact, compressed: Compress) -> tuple[Entry, ...]:
    return (
        Entry(artifact=tiny_reference, runtime="pytorch", timed_only=True),
        Entry(artifact=tiny_fp32, runtime="openvino"),
        Entry(artifact=compressed("int8", "openvino"), runtime="openvino"),
    )


def plan_of(entries: tuple[Entry, ...]) -> Plan:
    return Plan(entries=entries, cases=(), reference="fp32", baseline=entries[0].name, threads=1, turns=ROUNDS)


def test_every_row_has_one_run_a_round(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    lines: list[str] = []
    run = load_run(run_bench(plan_of(entries), tmp_path / "run", lines.append).folder)
    assert run.record.turns == ROUNDS
    assert list(run.rows) == ["pytorch", "fp32", "int8-openvino"]
    assert [len(row.samples_ms) for row in run.rows.values()] == [ROUNDS] * 3
    assert all(sum(row.executed_convolutions.values()) == CONVOLUTIONS for row in run.rows.values()), (
        "kernels are read back as in any other row"
    )
    assert [line for line in lines if line.startswith("round")] == [f"round {index} of {ROUNDS}" for index in range(1, ROUNDS + 1)]
    loaded = [lines.index(next(line for line in lines if line.startswith(f"{name}: loaded"))) for name in run.rows]
    assert max(loaded) < lines.index("round 1 of 5"), "every row is loaded and warm before the first is timed"
    assert not any(READY in line for line in lines)


def test_samples_of_other_rounds_are_found_out(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    store = run_bench(plan_of(entries[:2]), tmp_path / "run", lambda _: None)
    path = store.row_path("fp32")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"samples_ms": row["samples_ms"][1:]}))
    with pytest.raises(SpecError, match=r"fp32\.json has 4 samples, where .*run\.json tells of 5 rounds"):
        load_run(store.folder)


def test_the_order_is_turned_round_in_every_second_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    class Willing(Worker):
        def lines(self) -> Iterator[str]:
            yield READY

        def ask(self) -> None:
            asked.append(self.job.artifact)

        def dismiss(self) -> None:
            asked.append(f"no more of {self.job.artifact}")

    @contextmanager
    def started(job: Job, out: Path, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
        assert environment is None
        yield Willing(job=job, process=subprocess.Popen(["true"], encoding="utf-8"), errors=out)

    monkeypatch.setattr(turns, "started_worker", started)
    jobs = [(name, Job(task="time", artifact=name, runtime="openvino", threads=1, in_turns=True), tmp_path / name) for name in "abc"]
    run_in_turns(jobs, 3, lambda _name, _line: None)
    assert "".join(asked[:9]) == "abccbaabc"
    assert asked[9:] == [f"no more of {name}" for name in "abc"]


def test_a_worker_that_dies_ends_the_others_and_the_run(
    entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Worker] = []
    real, ask = isolate.started_worker, Worker.ask

    @contextmanager
    def started(job: Job, out: Path, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
        with real(job, out, environment) as worker:
            running.append(worker)
            yield worker

    def dying(worker: Worker) -> None:
        if worker is running[-1]:
            worker.process.kill()
            worker.process.wait()
        ask(worker)

    monkeypatch.setattr(turns, "started_worker", started)
    monkeypatch.setattr(Worker, "ask", dying)
    with pytest.raises(EdgeLatupError, match=r"int8.* on openvino was killed \(SIGKILL\)"):
        run_bench(plan_of(entries[1:]), tmp_path / "run", lambda _: None)
    assert len(running) == 2
    assert all(worker.process.poll() is not None for worker in running)
    assert not list((tmp_path / "run").rglob("*.json"))


def test_a_worker_whose_caller_is_gone_ends(tiny_fp32: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "batch.npy", some_batch())
    job = Job(
        task="time", artifact=str(tiny_fp32.folder), runtime="openvino", threads=1, in_turns=True, batch=str(tmp_path / "batch.npy")
    )  # fmt: skip
    with ExitStack() as stack:
        worker = stack.enter_context(isolate.started_worker(job, tmp_path / "row.json"))
        worker.dismiss()
        with pytest.raises(EdgeLatupError, match="no run was asked for"):
            list(worker.lines())
    assert not (tmp_path / "row.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process.pid, 0)
