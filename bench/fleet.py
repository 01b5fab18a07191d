"""A run on another host, and runs on several side by side: FLEET/fleet.json, FLEET/hosts/<name>/ with a bench run in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import Literal

from edge_latup.bench.remote import RUNTIME_MODULES, RemoteWorkers
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes import preferred_on
from edge_latup.targets.remote_host import RemoteHost
from edge_latup.targets.remote_session import LEASE_SECONDS, RemoteSession

Note = Callable[[str], None]


class FleetHost(Record):
    """How it went on one host: `folder`, below the fleet's, holds its run, or `error` says why there is none."""

    name: str
    address: str
    folder: str | None = None
    error: str | None = None
    hint: str | None = None


class FleetRecord(Record):
    """fleet.json, written last."""

    schema_version: Literal[1] = 1
    started: str
    command: str
    hosts: tuple[FleetHost, ...]


@dataclass(frozen=True, kw_only=True)
class LoadedFleet:
    """A fleet's record and the runs of the hosts that did not fail, by name, in the fleet's order."""

    folder: Path
    record: FleetRecord
    runs: Mapping[str, LoadedRun]


def run_on_host(plan: Plan, host: RemoteHost, out: Path, note: Note, *, lease: float = LEASE_SECONDS, keep: bool = True) -> None:
    """Run `plan` on one host; 0 threads are all of its cores.

    Raises:
        RemoteError: it cannot be reached, is not trusted, was lost, or lacks what is needed.
        EdgeLatupError: as `run_bench`.
    """
    with RemoteSession(host, note, lease=lease, keep=keep) as session:
        note(
            f"{host.name}: Python {session.probe.python}, {session.probe.cores} cores, {session.probe.free_disk / 1e9:,.1f} GB free on disk"
        )
        suited = replace(plan, entries=_suited(plan.entries, session), threads=plan.threads or session.probe.cores)
        workers = RemoteWorkers(session, note, [entry.runtime for entry in suited.entries])
        run_bench(suited, out, lambda line: note(f"{host.name}: {line}"), workers)


def _suited(entries: tuple[Entry, ...], session: RemoteSession) -> tuple[Entry, ...]:
    """The rows with the runtime that a command on that host would choose, unless one was asked for."""

    def on_host(entry: Entry) -> Entry:
        best = preferred_on(session.probe.machine, entry.artifact)
        module = RUNTIME_MODULES.get(best)
        there = module is not None and (session.probe.modules.get(module) is not None or session.host.wheels is not None)
        return entry if entry.named or not there else replace(entry, runtime=best)

    return tuple(map(on_host, entries))


def run_fleet(
    plan: Plan, hosts: Sequence[RemoteHost], out: Path, note: Note, *, lease: float = LEASE_SECONDS, keep: bool = True
) -> LoadedFleet:
    """Run `plan` on every host at the same time, on each one row after the other.

    Raises:
        InputError: `out` holds a fleet or a run already.
    """
    if any((out / name).exists() for name in ("fleet.json", "hosts", "run.json")) or out.is_file():
        raise InputError(f"{out} already holds records", "choose another --out: records are never mixed")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, FleetHost] = {}

    def measure(host: RemoteHost) -> None:
        found[host.name] = _one(plan, host, out, note, lease=lease, keep=keep)

    # Daemons: Ctrl-C ends this process at once instead of after the last host, and what runs there ends with its lease.
    threads = [Thread(target=measure, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = tuple(found[host.name] for host in hosts)
    write_record(FleetRecord(started=started, command=plan.command, hosts=done), out / "fleet.json")
    return load_fleet_run(out)


def _one(plan: Plan, host: RemoteHost, out: Path, note: Note, *, lease: float, keep: bool) -> FleetHost:
    folder = f"hosts/{host.name}"
    try:
        run_on_host(plan, host, out / folder, note, lease=lease, keep=keep)
    except EdgeLatupError as error:
        note(f"{host.name}: failed: {error.message}")
        return FleetHost(name=host.name, address=host.shown, error=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001  (the other hosts' rows are kept)
        note(f"{host.name}: failed: {type(error).__name__}: {error}")
        return FleetHost(name=host.name, address=host.shown, error=f"{type(error).__name__}: {error}", hint="this is a bug: report it")
    return FleetHost(name=host.name, address=host.shown, folder=folder)


def load_fleet_run(folder: Path) -> LoadedFleet:
    """Read a fleet's record and runs.

    Raises:
        SpecError: a record is missing or damaged.
    """
    record = read_record(FleetRecord, folder / "fleet.json")
    runs = {host.name: load_run(folder / host.folder) for host in record.hosts if host.folder is not None}
    return LoadedFleet(folder=folder, record=record, runs=runs)
