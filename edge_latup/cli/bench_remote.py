"""`edge-latup bench --host` and `--fleet`: the same measurement on other machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.cli.output import output
from edge_latup.errors import InputError, RemoteError

if TYPE_CHECKING:
    from edge_latup.bench.fleet import LoadedFleet
    from edge_latup.bench.run import Plan
    from edge_latup.bench.store import LoadedRun
    from edge_latup.targets.remote_host import RemoteHost

LEASE: Final = 120.0
"""Seconds; unless another is given."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """The options that say where to measure, as they were typed."""

    host: str | None
    fleet: Path | None
    identity: Path | None
    known_hosts: Path | None
    python: str | None
    cache: str | None
    wheels: Path | None
    keep: bool
    lease: float

    @property
    def remote(self) -> bool:
        """Whether it is elsewhere."""
        return self.host is not None or self.fleet is not None

    def check(self) -> None:
        """Refuse options that do nothing.

        Raises:
            InputError: as said.
        """
        if self.host is not None and self.fleet is not None:
            raise InputError("both --host and --fleet are given", "name the hosts in the fleet file, or one with --host")
        if self.host is None and (
            unused := [f"--{name.replace('_', '-')}" for name, value in self._of_host().items() if value is not None]
        ):
            hint = "in a fleet file, name them for each host" if self.fleet else "add --host user@board"
            raise InputError(f"only --host takes {', '.join(unused)}", hint)
        if not self.remote and (unused := [name for name, given in self._of_any().items() if given]):
            raise InputError(f"only --host and --fleet take {', '.join(unused)}", "add --host user@board")

    def _of_any(self) -> dict[str, bool]:
        return {"--no-cache": not self.keep, "--lease": self.lease != LEASE}

    def _of_host(self) -> dict[str, object]:
        return {
            "identity": self.identity, "known_hosts": self.known_hosts, "python": self.python, "remote_cache": self.cache,
            "wheels": self.wheels,
        }  # fmt: skip

    def the_host(self) -> RemoteHost:
        """The host that --host names, with its options."""
        from pydantic import ValidationError

        from edge_latup.records import summary_of
        from edge_latup.targets.remote_host import RemoteHost, parse_host

        given = {"cache" if name == "remote_cache" else name: value for name, value in self._of_host().items() if value is not None}
        try:
            return RemoteHost.model_validate(parse_host(self.host or "").model_dump() | given)
        except ValidationError as error:
            raise InputError(f"--host {self.host} with these options: {summary_of(error)}", "see docs/remote-hosts.md") from error


def bench_host(plan: Plan, out: Path, where: Where) -> LoadedRun:
    """Measure on one host."""
    from edge_latup.bench.fleet import run_on_host
    from edge_latup.bench.store import load_run

    run_on_host(plan, where.the_host(), out, output.note, lease=where.lease, keep=where.keep)
    return load_run(out)


def bench_fleet(plan: Plan, out: Path, where: Where) -> None:
    """Measure on the hosts of a fleet file and show one table.

    Raises:
        RemoteError: a host failed; the others' rows are kept and shown.
    """
    from edge_latup.bench.fleet import run_fleet
    from edge_latup.targets.remote_host import load_fleet

    if where.fleet is None:
        raise InputError("no fleet file is named", "add --fleet fleet.toml")
    made = run_fleet(plan, load_fleet(where.fleet).host, out, output.note, lease=where.lease, keep=where.keep)
    show_fleet(made)
    if failed := [host for host in made.record.hosts if host.error is not None]:
        first = failed[0]
        raise RemoteError(f"{len(failed)} of {len(made.record.hosts)} hosts failed; {first.name}: {first.error}", first.hint or "")


def show_fleet(made: LoadedFleet) -> None:
    """Write the merged tables beside the hosts' records and print them, or the fleet as JSON."""
    from edge_latup.bench import fleet_table as table
    from edge_latup.records import write_text

    for name, text in (("table.csv", table.to_csv(made)), ("table.md", table.to_markdown(made)), ("table.json", table.to_json(made))):
        write_text(text, made.folder / name)
    for shown in table.tables(made):
        output.table(shown.title, shown.columns, shown.rows, left=shown.left)
    for warning in table.warnings(made):
        output.warning(warning)
    output.result(table.as_data(made), f"records and tables in {made.folder}")
