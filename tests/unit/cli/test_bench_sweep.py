"""`edge-latup bench --sweep` and `quantize --all`: options that belong together, one JSON value, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from sample_sweep import INT8, row, sweep_of
from support import tree

from edge_latup.artifact import Artifact
from edge_latup.bench.sweep_store import LoadedSweep


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Plans that were asked for; the sweep itself is made up."""
    from edge_latup.bench import sweep as module

    plans: list[object] = []

    def fake(plan: object, out: Path, progress: object) -> LoadedSweep:
        plans.append(plan)
        out.mkdir(exist_ok=True)
        made = sweep_of([row("fp32", 1000, "avx2"), row("int8", 900, "avx2", **INT8)])
        return LoadedSweep(folder=out, record=made.record, rows=made.rows, drift=made.drift)

    monkeypatch.setattr(module, "run_sweep", fake)
    return plans


def test_the_axes_reach_the_sweep(cli: Command, swept: list[object], tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli(
        "--json", "bench", tiny_fp32.folder, "--sweep", "--out", tmp_path / "s", "--threads", "1,2", "--isa", "native,avx2",
        "--runtimes", "all", "--runs", "3",
    )  # fmt: skip
    assert done.code == 0, done.err
    (plan,) = swept
    assert (plan.threads, plan.isas, plan.min_runs) == ((1, 2), ("native", "avx2"), 3)  # type: ignore[attr-defined]
    assert [entry.runtime for entry in plan.entries] == ["openvino", "onnxruntime"]  # type: ignore[attr-defined]
    assert done.data["isas"]["avx2"][0]["artifact"] == "fp32"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["table.csv", "table.json", "table.md"]


def test_the_verdict_is_printed_and_a_missed_bound_ends_with_four(
    cli: Command, swept: list[object], tiny_fp32: Artifact, tmp_path: Path
) -> None:  # fmt: skip
    done = cli("bench", tiny_fp32.folder, "--sweep", "--out", tmp_path / "s", "--bounds")
    assert done.code == 4
    assert "Do not ship INT8 yet: int8 on openvino is 1.11 times as fast as fp32" in done.out
    assert "FAIL  emulated AVX2: INT8 at least 1.8 times as fast as FP32: 1.11" in done.out
    assert "1 of 5 bounds are missed" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--isa", "avx2"], "only --sweep takes --isa"),
        (["--bounds", "--runtimes", "openvino"], "only --sweep takes --runtimes, --bounds"),
        (["--threads", "1,2"], "--threads 1,2 names several numbers"),
        (["--sweep", "--cases", "x"], "--sweep does not take --cases"),
        (["--sweep", "--turns", "5"], "--sweep does not take --turns"),
        (["--turns", "5", "--runs", "20", "--seconds", "9"], "--turns does not take --runs, --seconds"),
        (["--turns", "5", "--host", "board"], "--turns does not take --host or --fleet"),
        (["--turns", "1"], "Invalid value for '--turns'"),
        (["--sweep", "--isa", "mmx"], "unknown instruction set 'mmx'"),
        (["--sweep", "--runtimes", "pytorch"], "was made for none of pytorch"),
        (["--sweep", "--threads", "many"], "--threads 'many' is not a number"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], message: str, cli: Command, tiny_fp32: Artifact, tmp_path: Path
) -> None:  # fmt: skip
    done = cli("bench", tiny_fp32.folder, "--out", tmp_path / "s", *options)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "s").exists()


def test_a_runtime_is_named_in_one_place(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli("bench", f"{tiny_fp32.folder}@onnxruntime", "--sweep", "--runtimes", "openvino", "--out", tmp_path / "s")
    assert (done.code, tree(tmp_path)) == (2, {})
    assert "@onnxruntime and --runtimes openvino both name a runtime" in done.err


def test_quantize_all_makes_and_skips(cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_latup.quantize import all_methods

    chosen = {name: method for name, method in all_methods.METHODS.items() if name in ("fp16", "int8")}
    monkeypatch.setattr(all_methods, "METHODS", chosen)
    done = cli("--json", "quantize", tiny_fp32.folder, "--all", "--out", tmp_path / "all")
    assert done.code == 0, done.err
    assert done.data["made"] == {"fp16": str(tmp_path / "all" / "fp16")}
    skipped = done.data["skipped"]
    assert "tensorrt is not installed" in skipped.pop("int8-tensorrt")
    assert skipped == {"int8": "it needs calibration cases", "int8-onnxruntime": "it needs calibration cases"}


@pytest.mark.parametrize(
    ("options", "message"), [(["--all", "--method", "int8"], "--all does not take --method"), ([], "no method is named")]
)  # fmt: skip
def test_quantize_takes_a_method_or_all(options: list[str], message: str, cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli("quantize", tiny_fp32.folder, "--out", tmp_path / "x", *options)
    assert done.code == 2
    assert message in done.err
