"""A ratio within rounds is that of the rows, whatever the machine does between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import REFERENCE, ROWS, Plan, sample

from edge_latup.bench.cautions import cautions
from edge_latup.bench.speed_up import speed_up, times_as_fast
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.table import as_data, tables
from edge_latup.bench.verdict import verdict

ROUNDS = 20


def run_in_turns(folder: Path, **samples: tuple[float, ...]) -> LoadedRun:
    """A run of which some rows have these samples; names have an underscore for the hyphen."""
    plan = Plan(run={"turns": len(next(iter(samples.values())))})
    for name in ROWS:
        times = samples.get(name.replace("-", "_"), (float(ROWS[name]["median_ms"]),) * plan.run["turns"])
        plan = plan.changed(name, samples_ms=times)
    return sample(folder, plan)


def test_a_machine_that_halves_its_speed_changes_no_ratio(tmp_path: Path) -> None:
    # The two rows meet the slow half in other shares of their runs, as rows timed one after the other do: medians are then worth nothing.
    slow = np.repeat([1.0, 2.0], ROUNDS // 2)
    jitter = np.random.default_rng(0).normal(1, 0.01, (2, ROUNDS))
    fast, float_ = (tuple(base * slow * noise) for base, noise in zip((600.0, 900.0), jitter, strict=True))
    run = run_in_turns(tmp_path / "run", openvino_int8=fast, openvino_bf16=float_)
    found = speed_up(run, run.rows["openvino-int8"], run.rows["openvino-bf16"])
    assert found.times == pytest.approx(1.5, rel=0.01)
    assert found.interval is not None
    low, high = found.interval
    assert low < found.times < high
    assert high - low < 0.03


def test_the_interval_is_that_of_order_statistics(tmp_path: Path) -> None:
    # 20 values: the 6th and the 15th enclose the median at 95.9 %, the 7th and the 14th at 88.5 % (binomial table, n = 20, p = 1/2).
    ratios = np.random.default_rng(1).permutation(np.arange(1.0, 21.0))
    run = run_in_turns(tmp_path / "run", openvino_int8=(100.0,) * 20, pytorch_fp32=tuple(100.0 * ratios))
    found = speed_up(run, run.rows["openvino-int8"], run.baseline)
    assert (found.times, found.interval) == (10.5, (6.0, 15.0))


@pytest.mark.parametrize(("rounds", "exists"), [(2, False), (5, False), (6, True)])
def test_few_rounds_enclose_nothing(rounds: int, exists: bool, tmp_path: Path) -> None:
    run = run_in_turns(tmp_path / "run", openvino_int8=tuple(100.0 + index for index in range(rounds)))
    assert (speed_up(run, run.rows["openvino-int8"], run.baseline).interval is not None) == exists


def test_rows_one_after_the_other_have_the_ratio_of_medians(tmp_path: Path) -> None:
    run = sample(tmp_path / "run")
    row = run.rows["openvino-int8"]
    assert speed_up(run, row, run.baseline).interval is None
    assert times_as_fast(run, row, run.baseline) == run.baseline.p50_ms / row.p50_ms
    assert "speed-up from" not in tables(run, full=True)[0].columns


@given(
    machine=st.lists(st.floats(0.5, 8), min_size=6, max_size=40),
    row=st.floats(10, 1e4),
    than=st.floats(10, 1e4),
)
@settings(max_examples=40, deadline=None)
def test_what_slows_whole_rounds_is_not_seen(
    tmp_path_factory: pytest.TempPathFactory, machine: list[float], row: float, than: float
) -> None:
    # Whatever the machine does from round to round, all of it cancels.
    own, other = (tuple(base * one for one in machine) for base in (row, than))
    run = run_in_turns(tmp_path_factory.mktemp("run"), openvino_int8=own, openvino_bf16=other)
    found = speed_up(run, run.rows["openvino-int8"], run.rows["openvino-bf16"])
    assert found.times == pytest.approx(than / row)
    assert found.interval == pytest.approx((than / row, than / row))


def test_every_form_of_the_run_tells_it(tmp_path: Path) -> None:
    slow = tuple(float(value) for value in np.tile([700.0, 1400.0], ROUNDS // 2))
    run = run_in_turns(
        tmp_path / "run", openvino_int8=slow, openvino_bf16=tuple(1.5 * value for value in slow), pytorch_fp32=(12900.0,) * ROUNDS
    )
    line = next(line for line in as_data(run)["artifacts"] if line["artifact"] == "openvino-int8")
    assert (line["speed_up_low"], line["speed_up_high"]) == pytest.approx((12900 / 1400, 12900 / 700))
    timing = tables(run, full=True)[0]
    assert "in turns, 20 rounds; " in timing.title
    assert {"speed-up from", "to"} <= set(timing.columns)
    assert "1.50 times as fast as openvino-bf16" in verdict(run).reasons[0]
    uneven = [text for text in cautions(run) if "shortest run" in text]
    assert len(uneven) == 2
    assert all("slowed the other rows of those rounds too" in text for text in uneven)
    assert REFERENCE not in "".join(uneven)
