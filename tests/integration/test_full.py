"""`edge-latup demo --full` on the tiny network: every stage takes what the one before it made, and the report shows the sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command

from edge_latup.bench import full as module
from edge_latup.bench.store import load_run
from edge_latup.bench.sweep_store import load_sweep
from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.layout import CaseFiles
from edge_latup.targets.host import AMX, cpu_flags, describe_host
from edge_latup.targets.isa import LEVELS

STAGES = [
    "phantoms", "export, proven equal to PyTorch", "surgery and compression", "bench and drift", "audit of executed kernels", "gate",
    "sweep", "report",
]  # fmt: skip


@pytest.mark.slow
def test_every_stage_from_one_command(
    cli: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def small(folder: Path, seed: int, count: int, progress: object) -> list[CaseFiles]:
        return list(write_cohort(folder, cases=min(count, 2), seed=seed, shape=(40, 36, 32)))

    monkeypatch.setattr(module, "make_phantoms", small)
    done = cli("--json", "demo", "--full", "--checkpoint", tiny_checkpoint, "--out", tmp_path, "--phantoms", 1)
    assert done.code == 0, done.err
    told = done.data
    assert list(told["seconds"]) == STAGES
    assert sum(" stage: " in line and " took " in line for line in done.err.splitlines()) == len(STAGES)
    assert "int8" in told["accepted"]
    assert "rewrite" not in told["accepted"], "it was proven to compute the same"
    assert {line.partition(" on ")[0] for line in told["audit"][:4]} >= {"fp32", "rewrite"}
    assert any("int8 on openvino: " in line and "executed INT8 9" in line for line in told["audit"])
    assert [line[:3] for line in told["bounds"]] == ["N/A"] * 5, "no 128 x 128 x 128"
    for name in ("int8", "int8-rewritten"):
        (manifest,) = tmp_path.glob(f"*/artifacts/{name}/manifest.json")
        made_by = json.loads(manifest.read_text(encoding="utf-8"))["recipe"][-1]["parameters"]
        assert (made_by["keep_float"], made_by["ranges"]) == (["encoder1.embedding", "output"], "mse"), "as `edge-latup demo` makes it"
    if AMX in describe_host().isa:
        assert {"int8-bf16", module.UNPAIRED} <= set(load_run(next(tmp_path.glob("*/records"))).rows)
        assert "int8-bf16" in told["accepted"]
    _check_sweep(next(tmp_path.glob("*/sweep")), told["accepted"])
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert 'id="sweep"' in page
    assert 'id="plot-sweep-native"' in page


def _check_sweep(folder: Path, accepted: dict[str, bool]) -> None:
    sweep = load_sweep(folder)
    assert not sweep.unfinished
    assert not [row.reason for row in sweep.rows.values() if row.status == "failed"]
    native = {(row.artifact, row.runtime) for row in sweep.timings("native")}
    assert {("fp32", "openvino"), ("int8", "openvino"), ("fp32", "onnxruntime"), ("int8-onnxruntime", "onnxruntime")} <= native
    run = load_run(folder.with_name("records"))
    assert run.record.turns == module.ROUNDS
    for name, row in run.rows.items():
        assert row in sweep.timings("native"), f"{name} was timed once"
    for isa, level in LEVELS.items():
        rows = {row.artifact for row in sweep.timings(isa)}
        possible = set(level.flags) <= cpu_flags()
        wanted = {"fp32"} | {name for name in ("int8", "int8-rewritten") if accepted.get(name)}
        assert rows == (wanted if possible else set()), "what the gate refused is not measured where it will not be used"
    assert sweep.record.reference == "fp32"
    assert set(accepted) <= set(sweep.drift)
