"""`edge-latup predict`: what an artifact will take on a target that is not here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_latup.cli.options import parse_size
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.bench.predict_records import LayerPrediction, Prediction

LAYERS: Final = ("operation", "kind", "precision", "MAC", "MB moved", "bound ms (predicted)", "likely ms (predicted)")

SIZES: Final = "64,96,128"
ISAS: Final = "all"


def predict(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder.")] = None,
    target: Annotated[str | None, typer.Option(help="A known target, or a profile file (.toml); see edge-latup targets.")] = None,
    size: Annotated[str | None, typer.Option(help="Spatial size, such as 96 or 128x128x96; the artifact's own unless given.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of an x86 target; 0 uses all of its cores.")] = 0,
    rates: Annotated[Path | None, typer.Option(help="Class rates of an x86 target's instruction set, as --check writes them.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every operation.")] = False,
    published: Annotated[bool, typer.Option("--published", help="Instead, hold predictions against published latencies.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Instead, measure this host into a folder and check predictions on it: minutes.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="With --check: sizes.")] = SIZES,
    isas: Annotated[str, typer.Option(help="With --check: instruction sets.")] = ISAS,
    docs: Annotated[Path | None, typer.Option(help="With --check: the document whose marked block gets the table.")] = None,
) -> None:
    """Predict latency (a bound and a likely value), peak memory and energy on a target; nothing is executed there."""
    _refuse_unused(
        published=published, check=check, given={"ARTIFACT": artifact, "--target": target, "--size": size, "--rates": rates,
        "--layers": layers}, checked={"--sizes": sizes != SIZES, "--isas": isas != ISAS, "--docs": docs},
    )  # fmt: skip
    if published:
        _published()
    elif check is not None:
        _check(check, sizes, isas, threads, docs)
    elif artifact is None or target is None:
        raise InputError(
            "predict needs an artifact and a target", "edge-latup predict ARTIFACT --target NAME; edge-latup targets lists names"
        )
    else:
        _predict(artifact, target, size, threads, rates, layers=layers)


def _refuse_unused(*, published: bool, check: Path | None, given: Mapping[str, object], checked: Mapping[str, object]) -> None:
    if published and check is not None:
        raise InputError("--published and --check exclude each other", "leave one out")
    if (published or check is not None) and (named := [name for name, value in given.items() if value]):
        raise InputError(f"{'--published' if published else '--check'} does not take {', '.join(named)}", "leave it out")
    if check is None and (named := [name for name, value in checked.items() if value]):
        raise InputError(f"only --check takes {', '.join(named)}", "add --check FOLDER; one prediction has --size")


def _predict(artifact: Path, target: str, size: str | None, threads: int, rates: Path | None, *, layers: bool) -> None:
    from edge_latup.artifact import open_artifact
    from edge_latup.bench.predict import predict as predicted
    from edge_latup.records import read_record
    from edge_latup.targets.class_rates import ClassRates
    from edge_latup.targets.profile import load_profile

    profile = load_profile(target)
    if threads and profile.kind != "x86":
        raise InputError(f"--threads is for x86 targets, and {target} is none", "leave it out")
    if rates is not None and profile.kind != "x86":
        raise InputError(f"--rates is for x86 targets, and {target} is none", "leave it out")
    found = predicted(
        open_artifact(artifact), profile, size=None if size is None else parse_size(size, "--size"), threads=threads or None,
        rates=None if rates is None else read_record(ClassRates, rates),
    )  # fmt: skip
    _show(found)
    if layers:
        output.table("Operations (predicted)", LAYERS, [_row(layer) for layer in found.layers], left=3)
    if not found.memory.fits:
        output.warning(f"predicted not to fit: {found.memory.reason}. Instead: {found.memory.instead}")
    output.result(found.model_dump(mode="json"))


def _show(found: Prediction) -> None:
    shape = "x".join(map(str, found.input_shape))
    output.line(f"{found.artifact}, input {shape}, {found.precision}, on {found.target_title}: PREDICTED")
    at = "latency at the rates a probe measured, which are no ceilings:" if found.probed else "latency, at least:"
    output.line(f"{at} {found.bound_ms:,.1f} ms ({found.macs / 1e9:,.1f} GMAC{'' if found.probed else ' at the peak rates'})")
    if found.likely_ms is not None and found.likely_range_ms is not None:
        low, high = found.likely_range_ms
        output.line(f"latency, likely: {found.likely_ms:,.1f} ms ({low:,.1f} to {high:,.1f})")
    for name, text in (("method", found.method), ("accuracy", found.error), ("evidence", found.evidence)):
        output.line(f"{name}: {text}")
    output.line(
        f"peak memory: {_mib(found.memory.total)} of {_mib(found.memory.available)}: {'fits' if found.memory.fits else 'DOES NOT FIT'}"
    )
    for energy in found.energy:
        unknown = "not known: there is no likely latency" if found.likely_ms is None else "not known: its clocks are not"
        at_most = unknown if energy.joules_at_most is None else f"at most {energy.joules_at_most:,.2f} J an inference"
        output.line(f"energy, {energy.mode} ({energy.watts:g} W): {at_most}")
    for note in found.notes:
        output.line(f"note: {note}")


def _row(layer: LayerPrediction) -> list[str]:
    likely = "" if layer.likely_ms is None else f"{layer.likely_ms:.2f}"
    return [layer.name, layer.kind, layer.precision, f"{layer.macs:,}", f"{layer.bytes_moved / 1e6:.1f}", f"{layer.bound_ms:.2f}", likely]


def _mib(amount: int) -> str:
    return f"{amount / 2**20:,.0f} MiB"


def _published() -> None:
    from edge_latup.bench.predict_check_table import PUBLISHED, published_cells
    from edge_latup.bench.published_cases import check_published

    checks = check_published()
    output.table("Published latencies and what is predicted for each from the others", PUBLISHED, [published_cells(one) for one in checks])
    for one in checks:
        output.line(f"{one.name}: {one.source}; {one.caution}")
    output.result([one.model_dump(mode="json") for one in checks])


def _check(out: Path, sizes: str, isas: str, threads: int, docs: Path | None) -> None:
    from edge_latup.bench.document_block import write_block
    from edge_latup.bench.predict_check import CheckPlan, run_check
    from edge_latup.bench.predict_check_table import BLOCK, markdown
    from edge_latup.bench.sweep import parse_isas
    from edge_latup.records import write_text

    sides = tuple(parse_size(part, "--sizes")[0] for part in sizes.split(","))
    command = shlex.join(["edge-latup", *sys.argv[1:]])
    plan = CheckPlan(sides=sides, isas=parse_isas(isas), threads=threads, command=command)
    record = run_check(plan, out, output.note)
    text = markdown(record)
    write_text(text, out / "table.md")
    if docs is not None:
        write_block(docs, BLOCK, text)
    output.line(text)
    if not record.passed:
        output.warning("predictions did not keep what docs/prediction.md promises: see the table")
    output.result(record.model_dump(mode="json"))
