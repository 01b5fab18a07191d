"""`edge-latup bench --sweep`: every artifact on every runtime, number of threads and instruction set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_latup.cli.options import parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import GateRefusedError, InputError

if TYPE_CHECKING:
    from edge_latup.bench.run import Entry
    from edge_latup.bench.sweep_store import LoadedSweep
    from edge_latup.manifest import RuntimeName


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The options of a sweep as they were typed."""

    threads: str
    isa: str
    runtimes: str | None
    drift: Path | None
    runs: int
    seconds: float


def sweep(entries: Sequence[Entry], out: Path, axes: Axes, *, bounds: bool) -> None:
    """Run the sweep and show it; with `bounds`, hold it against the bounds.

    Raises:
        InputError: an axis is not understood, or has nothing on it.
        GateRefusedError: a bound is missed.
    """
    from edge_latup.bench.store import load_run
    from edge_latup.bench.sweep import SweepPlan, parse_isas, parse_threads, run_sweep
    from edge_latup.runtimes.base import usable_cores

    plan = SweepPlan(
        entries=_on_runtimes(entries, axes.runtimes), threads=parse_threads(axes.threads, usable_cores()), isas=parse_isas(axes.isa),
        min_runs=axes.runs, min_seconds=axes.seconds, drift=load_run(axes.drift) if axes.drift else None,
        command=shlex.join(["edge-latup", *sys.argv[1:]]),
    )  # fmt: skip
    made = run_sweep(plan, out, output.note)
    show_sweep(made)
    if bounds:
        check(made)


def _on_runtimes(entries: Sequence[Entry], runtimes: str | None) -> tuple[Entry, ...]:
    """The entries on the runtimes of a comma list, as far as they were made for them; without a list, as they are."""
    from edge_latup.bench.run import Entry

    if runtimes is None:
        return tuple(entries)
    asked = _asked(runtimes)
    if named := [entry for entry in entries if entry.named]:
        raise InputError(f"{named[0].name}@{named[0].runtime} and --runtimes {runtimes} both name a runtime", "leave out one of the two")
    made_for = [(entry, [name for name in asked if name in entry.artifact.manifest.runtimes]) for entry in entries]
    if lacking := [entry.name for entry, names in made_for if not names]:
        raise InputError(f"{', '.join(lacking)} was made for none of {', '.join(asked)}", "leave it out, or name its runtime in --runtimes")
    return tuple(Entry(artifact=entry.artifact, runtime=name) for entry, names in made_for for name in names)


def _asked(runtimes: str) -> list[RuntimeName]:
    from edge_latup.runtimes import RUNTIMES

    if runtimes == "all":
        return [name for name, module in RUNTIMES.items() if module.is_available()]
    return [parse_runtime(name.strip()) for name in runtimes.split(",")]


def show_sweep(made: LoadedSweep) -> None:
    """Write the sweep's tables beside its rows and print them, or the sweep as JSON."""
    from edge_latup.bench import sweep_table as table

    print_sweep(made)
    output.result(table.as_data(made), f"rows and tables in {made.folder}")


def print_sweep(made: LoadedSweep) -> None:
    """Write tables beside the rows and print tables, what was not measured, and the verdicts."""
    from edge_latup.bench import sweep_table as table
    from edge_latup.bench.sweep_verdict import sweep_verdicts
    from edge_latup.records import write_text
    from edge_latup.targets.isa import title

    for name, text in (("table.csv", table.to_csv(made)), ("table.md", table.to_markdown(made)), ("table.json", table.to_json(made))):
        write_text(text, made.folder / name)
    for shown in table.sweep_tables(made):
        output.table(shown.title, shown.columns, shown.rows, left=shown.left)
    for line in table.unmeasured(made):
        output.note(line)
    for verdict in sweep_verdicts(made):
        output.line(f"{title(verdict.isa)}:")
        for line in table.verdict_lines(verdict):
            output.line(f"  {line}")


def check(made: LoadedSweep) -> None:
    """Print one line for each bound.

    Raises:
        GateRefusedError: one is missed.
    """
    from edge_latup.bench.sweep_bounds import check_bounds

    checked = check_bounds(made)
    for one in checked:
        output.line(one.line)
    if missed := [one for one in checked if one.status == "FAIL"]:
        raise GateRefusedError(f"{len(missed)} of {len(checked)} bounds are missed", f"the rows are in {made.folder}")
