"""`edge-latup gate`: accept or refuse the candidates of a bench run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.errors import GateRefusedError, InputError

if TYPE_CHECKING:
    from edge_latup.bench.gate_records import GateDecision, GateRule
    from edge_latup.bench.store import LoadedRun


def gate(
    run: Annotated[Path, typer.Argument(help="Folder that `edge-latup bench --out` wrote.")],
    candidate: Annotated[list[str] | None, typer.Option(help="Artifact to judge; may be repeated. All that were compared.")] = None,
    margin: Annotated[float | None, typer.Option(help="Mean Dice drop that must be excluded in each region; 0.005.")] = None,
    rule: Annotated[Path | None, typer.Option(help="The whole rule as JSON, instead of --margin.")] = None,
) -> None:
    """Accept a candidate only where harm is excluded: non-inferiority in WT, TC and ET, no bad case, no empty region. Exit code 4 if not.

    Fix the margin before you measure: one chosen after the figures are known proves nothing.
    """
    from edge_latup.bench.gate import judge
    from edge_latup.bench.gate_table import as_data, gate_lines, gate_tables, rule_line
    from edge_latup.bench.store import load_run

    fixed = parse_rule(margin, rule)
    loaded = load_run(run)
    decisions = [judge(loaded.drift[name], fixed, loaded.rows[name]) for name in _asked(loaded, candidate)]
    for decision in decisions:
        for table in gate_tables(decision):
            output.table(table.title, table.columns, table.rows, left=table.left)
        for line in gate_lines(decision):
            output.line(line)
        for warning in decision.warnings:
            output.warning(f"{decision.candidate}: {warning}")
    output.result(as_data(fixed, decisions), rule_line(fixed))
    _refuse([decision for decision in decisions if not decision.accepted])


def parse_rule(margin: float | None, path: Path | None) -> GateRule:
    """The rule of --margin or --rule, the default one where neither is given.

    Raises:
        InputError: both are given, or the margin is none.
        SpecError: the file is missing or not a rule.
    """
    from edge_latup.bench.gate_records import GateRule
    from edge_latup.records import read_record
    from edge_latup.spec import REGIONS

    if path is not None and margin is not None:
        raise InputError("--margin and --rule exclude each other", "write the margins into the rule")
    if path is not None:
        return read_record(GateRule, path)
    if margin is None:
        return GateRule()
    if not 0 < margin < 1:
        raise InputError(f"--margin {margin:g} is not a Dice drop", "write a number above 0 and below 1, such as 0.005")
    return GateRule(margin=dict.fromkeys(REGIONS, margin))


def _asked(run: LoadedRun, names: list[str] | None) -> tuple[str, ...]:
    if not run.drift:
        raise InputError(f"{run.folder} compared no candidate on any case", "bench a reference and a candidate with --cases")
    if unknown := [name for name in names or () if name not in run.drift]:
        raise InputError(f"{run.folder} compared no candidate named {', '.join(unknown)}", f"it has: {', '.join(run.drift)}")
    return tuple(dict.fromkeys(names)) if names else tuple(run.drift)


def _refuse(refused: list[GateDecision]) -> None:
    """All reasons stand in the result; the error names the first of each candidate."""
    if refused:
        named = "; ".join(f"{decision.candidate}: {_first(decision.reasons)}" for decision in refused)
        raise GateRefusedError(f"the gate refused {named}", "keep the reference, or compress again with another method or calibration")


def _first(reasons: tuple[str, ...]) -> str:
    more = len(reasons) - 1
    return reasons[0] + (f"; and {more} more {'reason' if more == 1 else 'reasons'}" if more else "")
