"""`edge-latup targets`: the hardware an artifact may run on, what it can do, and a profile of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.targets.profile import Profile

CEILINGS = "Peak rates in GMAC/s (dense; two operations are one MAC): ceilings, published or calculated from what is, not measured."

targets = typer.Typer(no_args_is_help=False, help="Name the hardware an artifact may run on, and what it can do.")


@targets.callback(invoke_without_command=True)
def _all(context: typer.Context) -> None:
    """Name the hardware an artifact may run on, and what it can do."""
    from edge_latup.targets.describe import OVERVIEW, overview_row
    from edge_latup.targets.profile import known_targets, load_profile

    if context.invoked_subcommand is not None:
        return
    profiles = [load_profile(name) for name in known_targets()]
    output.table("Targets", OVERVIEW, [overview_row(profile) for profile in profiles], left=3)
    output.line(CEILINGS)
    output.line("More of one: edge-latup targets show NAME")
    output.result({"targets": [_as_data(profile) for profile in profiles]})


@targets.command()
def show(name: Annotated[str, typer.Argument(help="A target's name, or a profile file (.toml).")]) -> None:
    """Print one target: each figure with its source, power modes, systems, what is refused and what to do instead."""
    from edge_latup.targets.profile import load_profile

    profile = load_profile(name)
    _print(profile)
    output.result(_as_data(profile))


@targets.command()
def probe(
    out: Annotated[Path | None, typer.Option(help="Profile file to write (.toml); it is only printed unless given.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One small convolution and few copies: a first look, not a figure to keep.")
    ] = False,
) -> None:
    """Measure this host's rates and bandwidth, and describe it as a target. Takes seconds; the machine should be idle."""
    from edge_latup.targets.probe import probe as probe_host
    from edge_latup.targets.profile import write_profile

    if out is not None:
        _check(out)
    output.note("measuring this host; other work on it lowers the figures")
    profile = probe_host(quick=quick)
    _print(profile)
    if out is not None:
        write_profile(profile, out)
        output.line(f"written: {out} (edge-latup targets show {out})")
    output.result(_as_data(profile) | {"file": str(out) if out else None})


def _check(out: Path) -> None:
    """Refuse, before anything is measured, a file that could not be read back or that is there already."""
    if out.suffix != ".toml":
        raise InputError(f"{out} does not end in .toml", "a profile file is known by that ending")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder", "make it, or give another --out")
    if out.exists():
        raise InputError(f"{out} exists", "give another --out, or remove it")


def _as_data(profile: Profile) -> dict[str, object]:
    return profile.model_dump(mode="json", exclude_none=True)


def _print(profile: Profile) -> None:
    from edge_latup.targets import describe

    output.line(f"{profile.title}: {profile.processor}")
    output.table("Figures", describe.FIGURES, describe.figure_rows(profile), left=3)
    for title, columns, rows in (
        ("Power modes", describe.MODES, describe.mode_rows(profile)),
        ("Systems", describe.SYSTEMS, describe.system_rows(profile)),
        ("Refused", describe.REFUSALS, describe.refusal_rows(profile)),
        ("This host", describe.HOST, describe.host_rows(profile)),
    ):
        if rows:
            output.table(title, columns, rows, left=len(columns))
    for limit in profile.limits:
        output.line(f"- {limit}")
    for source in describe.sources_of(profile):
        output.line(f"source: {source}")
