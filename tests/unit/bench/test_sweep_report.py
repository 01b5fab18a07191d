"""A sweep in the report: a section only where there is one, and no plot or table that holds native and emulated rows."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sample_run import write_run
from sample_sweep import BF16, INT8, refused, row, sweep_of

from edge_latup.bench.report import render_report
from edge_latup.bench.report.sweep import sweep_plots
from edge_latup.targets.isa import LEVELS, NATIVE

ISAS = [NATIVE, *LEVELS]


def test_the_section_is_there_where_a_sweep_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    sweep = sweep_of(
        [row("fp32", 3400), row("<int8>", 900, **INT8), row("fp32", 8000, "avx2")], {"<int8>": 0.03},
        others=[refused("bf16", "asked for bf16, it would run f32", "avx2")],
    )  # fmt: skip
    without = render_report(run, tmp_path / "a.html").read_text(encoding="utf-8")
    page = render_report(run, tmp_path / "b.html", sweep).read_text(encoding="utf-8")
    assert 'id="sweep"' not in without
    assert "plot-sweep" not in without
    assert "native: Ship fp32 on openvino with 2 threads on this machine (Test Processor 9000)." in page
    assert "Do not use INT8 here: &lt;int8&gt; on openvino is 3.78 times as fast as fp32" in page
    assert "bf16 on openvino (emulated AVX2; threads 2) refused: asked for bf16, it would run f32" in page
    assert "<int8>" not in page


@given(
    latencies=st.lists(st.tuples(st.sampled_from(ISAS), st.integers(1, 10**6)), min_size=1, max_size=12),
    judged=st.booleans(),
)  # fmt: skip
def test_native_and_emulated_rows_never_share_a_plot(latencies: list[tuple[str, int]], judged: bool) -> None:
    rows = [row(f"x{number}", float(ms), isa, **BF16) for number, (isa, ms) in enumerate(latencies)]  # type: ignore[arg-type]
    drops = {one.artifact: 0.001 for one in rows} if judged else None
    plots = {plot.name: plot.figure for plot in sweep_plots(sweep_of(rows, drops))}
    assert ("sweep-native" in plots) == (NATIVE in dict(latencies))
    for name, figure in plots.items():
        drawn = sorted((trace["name"], trace["x"][0]) for trace in figure["data"])
        expected = sorted((one.artifact, one.p50_ms) for one in rows if (one.isa == NATIVE) == (name == "sweep-native"))
        assert drawn == expected
        isas = dict.fromkeys(one.isa for one in rows if one.emulated) if name == "sweep-emulated" else [NATIVE]
        assert {trace["xaxis"] for trace in figure["data"]} == {f"x{index + 1 if index else ''}" for index, _ in enumerate(isas)}
