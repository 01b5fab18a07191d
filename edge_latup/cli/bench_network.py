"""`edge-latup bench-network`: one network down the whole road, and networks side by side."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.options import parse_size
from edge_latup.cli.output import output
from edge_latup.errors import InputError

SOURCE = "Checkpoint folder, FP32 artifact, or a model that `edge-latup import` takes. With --table: finished --out folders."


def bench_network(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help=SOURCE)],
    calibration: Annotated[Path | None, typer.Option(help="Folder of cases that INT8 is calibrated on.")] = None,
    cases: Annotated[Path | None, typer.Option(help="Folder of labelled cases to evaluate on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for artifacts, records and label maps.")] = None,
    size: Annotated[str | None, typer.Option(help="Of a checkpoint: input size, such as 160x160x16; its own unless given.")] = None,
    spec: Annotated[Path | None, typer.Option(help="spec.toml of a model that does not tell how it is fed.")] = None,
    onnxruntime: Annotated[bool, typer.Option("--onnxruntime", help="Also ONNX Runtime's FP32 and its dynamic INT8.")] = False,
    runs: Annotated[int, typer.Option(min=2, help="Timed runs of each form, unless --seconds ends first.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of timed runs after which a form has been timed enough.")] = 10.0,
    table: Annotated[bool, typer.Option("--table", help="Instead, show finished ones side by side.")] = False,
    docs: Annotated[Path | None, typer.Option(help="With --table: document whose marked block is rewritten.")] = None,
) -> None:
    """Export or import, compress, benchmark and judge one network, then segment a case with its fastest accepted form."""
    if table:
        if onnxruntime or any(given is not None for given in (calibration, cases, out, size, spec)):
            hint = "leave out --calibration, --cases, --out, --size, --spec and --onnxruntime"
            raise InputError("--table reads finished folders", hint)
        _show(sources, docs)
        return
    if docs is not None:
        raise InputError("--docs is for --table", "show finished folders: edge-latup bench-network --table FOLDER... --docs FILE")
    if calibration is None or cases is None or out is None or len(sources) != 1:
        hint = "edge-latup bench-network SOURCE --calibration CASES --cases OTHER-CASES --out FOLDER"
        raise InputError("one source, --calibration, --cases and --out are needed", hint)
    _run(sources[0], calibration, cases, out, size, spec, runs, seconds, onnxruntime=onnxruntime)


def _run(
    source: Path, calibration: Path, cases: Path, out: Path, size: str | None, spec: Path | None, runs: int, seconds: float,
    *, onnxruntime: bool,
) -> None:  # fmt: skip
    from edge_latup.bench.network_run import NetworkPlan, run_network
    from edge_latup.bench.network_table import FORMS, NETWORKS, form_rows, network_rows
    from edge_latup.cases.layout import find_cases

    plan = NetworkPlan(
        source=source, calibration=calibration, cases=tuple(find_cases(cases)), size=None if size is None else parse_size(size, "--size"),
        spec=spec, onnxruntime=onnxruntime, min_runs=runs, min_seconds=seconds, command=shlex.join(["edge-latup", *sys.argv[1:]]),
    )  # fmt: skip
    made = run_network(plan, out, output.note)
    output.table("Forms", FORMS, form_rows([made]), left=2)
    output.table("Network", NETWORKS, network_rows([made]))
    for decision in (*made.record.decisions, *made.record.other_decisions):
        found = "accepted" if decision.accepted else f"refused: {'; '.join(decision.reasons)}"
        output.line(f"{decision.candidate}: {found}")
    output.result(made.record.model_dump(mode="json"), f"fastest accepted: {made.record.chosen}; records in {out}")


def _show(folders: list[Path], docs: Path | None) -> None:
    from edge_latup.bench.document_block import write_block
    from edge_latup.bench.network_records import load_network
    from edge_latup.bench.network_table import BLOCK, markdown

    networks = [load_network(folder) for folder in folders]
    text = markdown(networks)
    if docs is not None:
        write_block(docs, BLOCK, text)
    output.line(text)
    output.result([one.record.model_dump(mode="json") for one in networks])
