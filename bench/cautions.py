"""What a reader of the figures must not miss: disturbed or short timings, precision that was declared and not executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.executed import not_executed
from edge_latup.bench.records import TimingRow
from edge_latup.bench.store import LoadedRun

MIN_SAMPLES: Final = 20
MIN_SECONDS: Final = 10.0
UNEVEN: Final = 1.2
"""Median over shortest run. Neighbours on a shared host are seen in nothing else that is kept."""


def cautions(run: LoadedRun) -> list[str]:
    """Every warning about the run, artifact by artifact; empty where there is nothing to warn of."""
    return [f"{name}: {text}" for name, row in run.rows.items() for check in CHECKS for text in check(run, row)]


def _load(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    if (disturbed := disturbance(row)) is not None:
        yield f"{disturbed}: timings are disturbed"


def _samples(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    seconds = sum(row.samples_ms) / 1000
    if len(row.samples_ms) < MIN_SAMPLES and seconds < MIN_SECONDS:
        wanted = f"{MIN_SAMPLES} samples or {MIN_SECONDS:.0f} s"
        yield f"only {len(row.samples_ms)} samples over {seconds:.1f} s, where {wanted} are wanted: p50 and p90 are rough"


def _uneven(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    if (ratio := row.p50_ms / row.min_ms) > UNEVEN:
        slowed = f"p50 is {ratio:.2f} times its shortest run ({row.min_ms:,.0f} ms): a shared host or a falling clock slowed some runs"
        if run.record.turns is None:
            yield f"{slowed}, and ratios between rows may be off by as much; repeat it when the machine is quiet, or with bench --turns"
        else:
            yield f"{slowed}; mostly it slowed the other rows of those rounds too, so speed-ups are less off than latencies"


def _precision(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    if (reason := not_executed(row)) is not None:
        yield reason


def _slower(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    if row.p50_ms > run.baseline.p50_ms:
        yield f"slower than the baseline {run.record.baseline} ({row.p50_ms:,.1f} ms against {run.baseline.p50_ms:,.1f} ms)"


def _like_for_like(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    baseline = run.baseline
    pairs = {
        "machine": (row.host.cpu, baseline.host.cpu),
        "number of threads": (row.threads, baseline.threads),
        "input shape": (row.input_shape, baseline.input_shape),
    }
    if differing := [what for what, (own, other) in pairs.items() if own != other]:
        yield f"its {' and '.join(differing)} differ from the baseline's, so its speed-up is not like for like"


def _drift_precision(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    drift = run.drift.get(row.artifact)
    if drift is not None and drift.executed_float != row.executed_float:
        yield f"timed in {row.executed_float} but its drift was measured in {drift.executed_float}"


def _emptied(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    drift = run.drift.get(row.artifact)
    for case in drift.cases if drift is not None else ():
        for region, values in case.regions.items():
            if values.volume_reference_ml > 0 and values.volume_candidate_ml == 0:
                yield f"found no {region} in {case.case}, where the reference found {values.volume_reference_ml:.2f} mL"


CHECKS: Final[tuple[Callable[[LoadedRun, TimingRow], Iterator[str]], ...]] = (
    _load,
    _samples,
    _uneven,
    _precision,
    _slower,
    _like_for_like,
    _drift_precision,
    _emptied,
)
