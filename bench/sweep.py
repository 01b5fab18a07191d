"""A sweep: every artifact on every runtime with every number of threads and every instruction set, each in a process of its own.

A row that is measured stays when the sweep is started again; one that was refused or failed is tried again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Final, cast, get_args

from edge_latup.bench.isolate import run_worker
from edge_latup.bench.records import TimingRow
from edge_latup.bench.run import PACKAGES, Entry, write_batches
from edge_latup.bench.store import LoadedRun, RunStore, file_name
from edge_latup.bench.sweep_records import CellKey, SweepRecord, SweepRow
from edge_latup.bench.sweep_store import LoadedSweep, SweepStore, load_sweep
from edge_latup.bench.turns import run_in_turns
from edge_latup.bench.worker import Job
from edge_latup.errors import EdgeLatupError, InputError, MissingDependencyError
from edge_latup.records import read_record
from edge_latup.targets.host import cpu_flags, describe_host
from edge_latup.targets.isa import EMULATING, NATIVE, IsaName, check_dispatch, environment, read_dispatch, refusal, title
from edge_latup.versions import versions_of

ISAS: Final[tuple[IsaName, ...]] = get_args(IsaName)


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep is asked to do: the product of its axes. An entry is an artifact on a runtime it was made for."""

    entries: tuple[Entry, ...]
    threads: tuple[int, ...]
    isas: tuple[IsaName, ...] = (NATIVE,)
    min_runs: int = 20
    min_seconds: float = 10.0
    warm_up_runs: int = 2
    turns: int | None = None
    """Rounds in which the cells of one instruction set and number of threads are run once each; None times one after the other."""
    drift: LoadedRun | None = None
    timed: LoadedRun | None = None
    """A run of minutes ago on this machine, whose rows are taken for the native cells that they are of."""
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Cell:
    key: CellKey
    entry: Entry


def parse_threads(text: str, cores: int) -> tuple[int, ...]:
    """Numbers of threads of a comma list such as "1,2"; 0 stands for `cores`.

    Raises:
        InputError: it holds something else.
    """
    return tuple(dict.fromkeys(_thread_count(part, cores) for part in text.split(",")))


def _thread_count(text: str, cores: int) -> int:
    if not text.strip().isdecimal():
        raise InputError(f"--threads {text!r} is not a number", "write numbers between commas, such as --threads 1,2; 0 is every core")
    return int(text) or cores


def parse_isas(text: str) -> tuple[IsaName, ...]:
    """Instruction sets of a comma list; "all" stands for every one.

    Raises:
        InputError: there is no such instruction set.
    """
    names = ISAS if text.strip() == "all" else tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in names if name not in ISAS]:
        raise InputError(f"unknown instruction set {unknown[0]!r}", f"choose among: {', '.join(ISAS)}; or all")
    return tuple(dict.fromkeys(cast("tuple[IsaName, ...]", names)))


def expand(plan: SweepPlan) -> list[CellKey]:
    """The cells of a plan: native ones first, then one instruction set after the other."""
    return [cell.key for cell in _cells(plan)]


def _cells(plan: SweepPlan) -> list[_Cell]:
    return [
        _Cell(key=CellKey(artifact=entry.name, runtime=entry.runtime, threads=threads, isa=isa), entry=entry)
        for isa, entry, threads in product(sorted(plan.isas, key=ISAS.index), plan.entries, plan.threads)
    ]


def run_sweep(plan: SweepPlan, out: Path, progress: Callable[[str], None]) -> LoadedSweep:
    """Measure the cells that have no timing yet; a cell that cannot be measured gets a row that says why.

    Raises:
        InputError: two artifacts of one name or of different input sizes, or `out` is a file, or holds a bench run, or a sweep of other
            artifacts, another machine or other versions.
        SpecError: a record in `out` is damaged.
    """
    store, cells = SweepStore(out), _cells(plan)
    _refuse_bad_plan(plan, store)
    store.write(_record(plan, cells, store), store.sweep_path)
    _copy_drift(plan, store)
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
        batches = dict(zip([entry.name for entry in plan.entries], write_batches(plan.entries, Path(scratch)), strict=True))
        together: dict[CellKey, SweepRow] = {}
        for number, cell in enumerate(cells, 1):
            kept, said = store.read_row(cell.key), f"{number}/{len(cells)} {_named(cell.key)}"
            if kept is not None and kept.timing is not None:
                progress(f"{said}: measured before")
                continue
            row, how = _taken(cell, plan), "timed in the bench"
            if row is None and plan.turns is not None:
                if cell.key not in together:
                    waiting = [one for one in cells[number - 1 :] if _beside(one.key, cell.key) and _waits(one, plan, store)]
                    together |= _measure_in_turns(waiting, plan, plan.turns, batches, Path(scratch), progress)
                row, how = together.get(cell.key), "timed in turns"
            progress(said if row is None else f"{said}: {how}")
            row = row or _measure(cell, plan, batches[cell.key.artifact], Path(scratch) / "row.json")
            store.write(row, store.row_path(cell.key))
            if row.reason:
                progress(f"{row.status}: {row.reason}")
    return load_sweep(out)


def _named(cell: CellKey) -> str:
    return f"{cell.artifact} on {cell.runtime}, {cell.threads} threads, {title(cell.isa)}"


def _refuse_bad_plan(plan: SweepPlan, store: SweepStore) -> None:
    if store.folder.exists() and not store.folder.is_dir():
        raise InputError(f"{store.folder} is a file", "choose another --out: the records of a sweep are a folder")
    if RunStore(store.folder).run_path.exists():
        raise InputError(f"{store.folder} holds a bench run", "choose another --out: their tables have the same names")
    folders: dict[str, Path] = {}
    for entry in plan.entries:
        file_name(entry.name)
        if folders.setdefault(entry.name, entry.artifact.folder) != entry.artifact.folder:
            where = f"{folders[entry.name]} and {entry.artifact.folder}"
            raise InputError(f"two artifacts are named {entry.name}: {where}", "a row is known by its artifact's name: rename one")
    sizes = {entry.artifact.manifest.spec.spatial.size: entry.name for entry in plan.entries}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {'x'.join(map(str, size))}" for size, name in sizes.items())
        raise InputError(f"the artifacts take inputs of different sizes: {told}", "export them for one size: their times are compared")
    if not plan.entries or not plan.threads or not plan.isas:
        raise InputError("a sweep needs an artifact, a number of threads and an instruction set", "see edge-latup bench --help")


def _record(plan: SweepPlan, cells: Sequence[_Cell], store: SweepStore) -> SweepRecord:
    """The record of this plan, joined with what `store` already holds."""
    artifacts = {entry.name: entry.artifact.digest for entry in plan.entries}
    reference = plan.drift.reference if plan.drift else None
    record = SweepRecord(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=plan.command,
        host=describe_host(),
        versions=versions_of(*PACKAGES),
        artifacts=artifacts,
        cells=tuple(cell.key for cell in cells),
        drift_run=str(plan.drift.folder) if plan.drift else None,
        reference=reference.artifact if reference and artifacts.get(reference.artifact) == reference.artifact_sha256 else None,
        notes=plan.notes,
    )
    if not store.sweep_path.exists():
        return record
    before = read_record(SweepRecord, store.sweep_path)
    _refuse_other(before, record, store)
    return record.model_copy(
        update={
            "started": before.started,
            "artifacts": before.artifacts | record.artifacts,
            "cells": tuple(dict.fromkeys([*before.cells, *record.cells])),
            "drift_run": record.drift_run or before.drift_run,
            "reference": record.reference or before.reference,
            "notes": tuple(dict.fromkeys([*before.notes, *record.notes])),
        }
    )


def _refuse_other(before: SweepRecord, record: SweepRecord, store: SweepStore) -> None:
    """Rows of two machines, versions or artifacts of one name would be compared as if they were of one."""
    known = {name: sha256 for name, sha256 in record.artifacts.items() if name in before.artifacts}
    differing = [f"the artifact {name}" for name, sha256 in known.items() if before.artifacts[name] != sha256]
    differing += ["this machine"] if (before.host.cpu, before.host.cores) != (record.host.cpu, record.host.cores) else []
    differing += ["the installed versions"] if before.versions != record.versions else []
    if before.reference and record.reference and before.reference != record.reference:
        differing.append("the reference of the drift")
    if differing:
        raise InputError(f"{store.folder} holds a sweep from which {' and '.join(differing)} differ", "choose another --out")


def _copy_drift(plan: SweepPlan, store: SweepStore) -> None:
    """Keep the drift of exactly these artifacts beside the rows, so that the sweep can be read without the run."""
    digests = {entry.name: entry.artifact.digest for entry in plan.entries}
    for name, record in (plan.drift.drift if plan.drift else {}).items():
        if digests.get(name) == record.artifact_sha256:
            store.write(record, store.drift_path(name))


def _taken(cell: _Cell, plan: SweepPlan) -> SweepRow | None:
    """The cell's row from the run that timed it; None where that run timed something else, or there is none."""
    key, sha256 = cell.key, cell.entry.artifact.digest
    timing = plan.timed.rows.get(key.artifact) if plan.timed is not None and key.isa == NATIVE else None
    if timing is None or (timing.artifact_sha256, timing.runtime, timing.threads) != (sha256, key.runtime, key.threads):
        return None
    return SweepRow(cell=key, artifact_sha256=sha256, status="measured", timing=timing)


def _beside(one: CellKey, other: CellKey) -> bool:
    """Whether two cells may take turns: of one runtime, instruction set and number of threads."""
    return (one.runtime, one.isa, one.threads) == (other.runtime, other.isa, other.threads)


def _waits(cell: _Cell, plan: SweepPlan, store: SweepStore) -> bool:
    """Whether a cell is neither measured nor to be taken from a run."""
    kept = store.read_row(cell.key)
    return (kept is None or kept.timing is None) and _taken(cell, plan) is None


def _measure_in_turns(
    cells: Sequence[_Cell], plan: SweepPlan, rounds: int, batches: Mapping[str, Path], folder: Path, progress: Callable[[str], None]
) -> dict[CellKey, SweepRow]:  # fmt: skip
    """Rows of cells that stand beside each other; none where one of them failed, since alone each tells what is wrong with it."""
    told: dict[str, list[str]] = {cell.key.artifact: [] for cell in cells}
    jobs = [
        (cell.key.artifact, _job(cell, plan, batches[cell.key.artifact], in_turns=True), folder / f"turn-{number}.json")
        for number, cell in enumerate(cells)
    ]
    if len(cells) < 2 or refusal(cells[0].key.isa, cells[0].key.runtime, cpu_flags()):
        return {}
    try:
        run_in_turns(jobs, rounds, lambda name, line: told[name].append(line) if name else progress(line), _environment(cells[0].key))
    except EdgeLatupError as error:
        progress(f"not in turns: {error.message}")
        return {}
    return {cell.key: _checked(cell, read_record(TimingRow, path), told[name]) for cell, (name, _, path) in zip(cells, jobs, strict=True)}


def _job(cell: _Cell, plan: SweepPlan, batch: Path, *, in_turns: bool = False) -> Job:
    return Job(
        task="time", artifact=str(cell.entry.artifact.folder), runtime=cell.key.runtime, threads=cell.key.threads,
        warm_up_runs=plan.warm_up_runs, min_runs=plan.min_runs, min_seconds=plan.min_seconds, in_turns=in_turns, batch=str(batch),
    )  # fmt: skip


def _environment(key: CellKey) -> Mapping[str, str] | None:
    return environment(key.isa) if key.runtime in EMULATING else None


def _measure(cell: _Cell, plan: SweepPlan, batch: Path, scratch: Path) -> SweepRow:
    """The cell's row; whatever stops it is written down, and the sweep goes on."""
    key, sha256 = cell.key, cell.entry.artifact.digest
    if reason := refusal(key.isa, key.runtime, cpu_flags()):
        return SweepRow(cell=key, artifact_sha256=sha256, status="refused", reason=reason)
    told: list[str] = []
    try:
        run_worker(_job(cell, plan, batch), scratch, told.append, _environment(key))
        return _checked(cell, read_record(TimingRow, scratch), told)
    except (InputError, MissingDependencyError) as error:
        return SweepRow(cell=key, artifact_sha256=sha256, status="refused", reason=error.message)
    except EdgeLatupError as error:
        return SweepRow(cell=key, artifact_sha256=sha256, status="failed", reason=error.message)


def _checked(cell: _Cell, timing: TimingRow, told: Sequence[str]) -> SweepRow:
    """A measured row, or a refused one where kernels above the instruction set ran."""
    key, sha256, dispatch = cell.key, cell.entry.artifact.digest, read_dispatch(told)
    try:
        check_dispatch(key.isa, dispatch, timing.implementations)
    except MissingDependencyError as error:
        return SweepRow(cell=key, artifact_sha256=sha256, status="refused", reason=error.message)
    timing = timing.model_copy(update={"isa": key.isa, "emulated": key.isa != NATIVE})
    listens = key.runtime in EMULATING
    return SweepRow(cell=key, artifact_sha256=sha256, status="measured", timing=timing, dispatch=dispatch if listens else None)
