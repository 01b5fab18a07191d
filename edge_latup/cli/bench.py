"""`edge-latup bench`: time artifacts side by side and record their drift."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_latup.cli.bench_remote import LEASE, Where, bench_fleet, bench_host
from edge_latup.cli.bench_sweep import Axes
from edge_latup.cli.bench_sweep import sweep as run_the_sweep
from edge_latup.cli.options import parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import InputError

RUNS: Final = 20
SECONDS: Final = 10.0

if TYPE_CHECKING:
    from edge_latup.bench.run import Entry
    from edge_latup.bench.store import LoadedRun


def parse_entry(text: str, *, here: bool = True) -> Entry:
    """ARTIFACT or ARTIFACT@runtime; a folder whose own name holds an @ is taken as it is. here: the runtime must be installed here."""
    from edge_latup.artifact import open_artifact
    from edge_latup.bench.run import Entry
    from edge_latup.runtimes import choose_runtime, runtime_made_for

    folder, at, runtime = text.rpartition("@")
    if not at or Path(text).is_dir():
        folder, runtime = text, ""
    artifact = open_artifact(Path(folder))
    chosen = (choose_runtime if here else runtime_made_for)(artifact, parse_runtime(runtime) if runtime else None)
    return Entry(artifact=artifact, runtime=chosen, timed_only=chosen == "pytorch", named=bool(runtime))


def bench(
    artifacts: Annotated[list[str], typer.Argument(help="Artifact folders; ARTIFACT@runtime chooses another runtime than its first.")],
    out: Annotated[Path, typer.Option(help="Run folder for the records; must not hold a run yet. A sweep's folder is continued.")],
    cases: Annotated[list[Path] | None, typer.Option(help="Cases to measure drift on; may be repeated.")] = None,
    reference: Annotated[str | None, typer.Option(help="Artifact the others are compared with; the first that is not PyTorch.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Artifact the others' latency is divided by; the first.")] = None,
    runs: Annotated[int | None, typer.Option(min=2, help="Timed runs of each artifact, unless --seconds ends first; 20.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Seconds of timed runs that are enough for an artifact; 10.")] = None,
    turns: Annotated[int | None, typer.Option(min=2, help="Rounds in which every artifact is run once, all being loaded.")] = None,
    threads: Annotated[str, typer.Option(help="CPU threads; 0 uses every core this process may use. With --sweep, a list: 1,2.")] = "0",
    sweep: Annotated[bool, typer.Option("--sweep", help="Time on every runtime, number of threads and ISA.")] = False,
    isa: Annotated[str, typer.Option(help="With --sweep: a list of native, avx2, avx2-vnni, avx512, avx512-vnni; or all.")] = "native",
    runtimes: Annotated[str | None, typer.Option(help="With --sweep: a list such as openvino,onnxruntime; or all.")] = None,
    drift: Annotated[Path | None, typer.Option(help="With --sweep: bench run whose drift judges the artifacts.")] = None,
    bounds: Annotated[bool, typer.Option("--bounds", help="With --sweep: check LATUP-Net's INT8 bounds; exit code 4.")] = False,
    host: Annotated[str | None, typer.Option(help="Measure on user@board or user@board:port, over SSH with keys.")] = None,
    fleet: Annotated[Path | None, typer.Option(help="Measure on the hosts of a fleet.toml, side by side.")] = None,
    identity: Annotated[Path | None, typer.Option(help="With --host: private key file; else the agent and the usual files.")] = None,
    known_hosts: Annotated[Path | None, typer.Option(help="With --host: file of trusted host keys; else the usual ones.")] = None,
    python: Annotated[str | None, typer.Option(help="With --host: Python there, 3.10 or newer; else python3.")] = None,
    remote_cache: Annotated[str | None, typer.Option(help="With --host: folder there; else ~/.cache/edge-latup.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="With --host: local folder of wheels for what that Python lacks.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="With --host or --fleet: leave nothing there for the next run.")] = False,
    lease: Annotated[float, typer.Option(min=5, help="Seconds after which a remote run ends itself when it hears nothing.")] = LEASE,
) -> None:
    """Time artifacts, each in a process of its own, and record their drift on cases. PyTorch is timed only.

    With --turns: rows share each round's machine, however its speed changes; their speed-up is the median over rounds, with its interval.
    With --sweep: how they do on each instruction set, which rows none beats, and what to ship. It goes on where it was interrupted.
    With --host or --fleet: the same on other machines, which need Python 3.10, numpy, pydantic, nibabel and the runtime.
    """
    from edge_latup.bench.run import Plan, run_bench
    from edge_latup.bench.store import load_run
    from edge_latup.cases.layout import find_cases

    where = Where(
        host=host, fleet=fleet, identity=identity, known_hosts=known_hosts, python=python, cache=remote_cache, wheels=wheels,
        keep=not no_cache, lease=lease,
    )  # fmt: skip
    where.check()
    entries = tuple(parse_entry(text, here=not where.remote) for text in artifacts)
    if sweep:
        unused = {
            "--cases": bool(cases), "--reference": bool(reference), "--baseline": bool(baseline), "--turns": bool(turns),
            "--host or --fleet": where.remote,
        }  # fmt: skip
        _refuse_unused("--sweep does not take", unused)
        axes = Axes(threads=threads, isa=isa, runtimes=runtimes, drift=drift, runs=runs or RUNS, seconds=seconds or SECONDS)
        run_the_sweep(entries, out, axes, bounds=bounds)
        return
    unused = {"--isa": isa != "native", "--runtimes": bool(runtimes), "--drift": bool(drift), "--bounds": bounds}
    _refuse_unused("only --sweep takes", unused)
    if turns:
        _refuse_unused("--turns does not take", {"--runs": bool(runs), "--seconds": bool(seconds), "--host or --fleet": where.remote})
    compared = [entry.name for entry in entries if not entry.timed_only]
    if not compared:
        raise InputError("there is no artifact to compare: PyTorch is only timed", "add the artifact that edge-latup export made")
    plan = Plan(
        entries=entries, cases=tuple(case for folder in cases or [] for case in find_cases(folder)), reference=reference or compared[0],
        baseline=baseline or entries[0].name, threads=0 if where.remote and threads == "0" else one_count(threads),
        min_runs=runs or RUNS, min_seconds=seconds or SECONDS, turns=turns, command=shlex.join(["edge-latup", *sys.argv[1:]]),
    )  # fmt: skip
    if where.fleet is not None:
        bench_fleet(plan, out, where)
        return
    if where.host is not None:
        show_run(bench_host(plan, out, where))
        return
    run_bench(plan, out, output.note)
    show_run(load_run(out))


def _refuse_unused(what: str, given: dict[str, bool]) -> None:
    if named := [option for option, is_given in given.items() if is_given]:
        raise InputError(f"{what} {', '.join(named)}", "see edge-latup bench --help")


def one_count(text: str) -> int:
    """The number of threads of a run that is no sweep.

    Raises:
        InputError: it is not one number.
    """
    from edge_latup.bench.sweep import parse_threads
    from edge_latup.runtimes.base import usable_cores

    counts = parse_threads(text, usable_cores())
    if len(counts) > 1:
        raise InputError(f"--threads {text} names several numbers", "add --sweep, or name one")
    return counts[0]


def show_run(run: LoadedRun) -> None:
    """Write the run's tables beside its records and print them, or the run as JSON."""
    from edge_latup.bench import table

    print_run(run)
    output.result(table.as_data(run), f"records and tables in {run.folder}")


def print_run(run: LoadedRun) -> None:
    """Write the run's tables beside its records and print them."""
    from edge_latup.bench import table
    from edge_latup.bench.cautions import cautions
    from edge_latup.bench.sensor_table import sensor_table
    from edge_latup.records import write_text

    for name, text in (("table.csv", table.to_csv(run)), ("table.md", table.to_markdown(run)), ("table.json", table.to_json(run))):
        write_text(text, run.folder / name)
    for shown in table.tables(run):
        output.table(shown.title, shown.columns, shown.rows, left=shown.left)
    if (sensors := sensor_table(run)) is not None:
        output.table(sensors.title, sensors.columns, sensors.rows, left=sensors.left)
    output.line(f"machine: {run.record.host.summary}")
    for caution in cautions(run):
        output.warning(str(caution))
