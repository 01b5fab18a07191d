"""Options of `edge-latup quantize` for static INT8: ranges of activations, operators, taps in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact
    from edge_latup.manifest import RuntimeName
    from edge_latup.quantize.compare_ranges import EstimatorRow, RangeComparison

AUTO: Final = "auto"
COLUMNS: Final = ("ranges", "MB", "clipped", "error: median", "worst", "worst tensor", "relative L2", "Dice WT", "TC", "ET")
COMPARED: Final = "another artifact for each way to find ranges"

Ranges = Annotated[
    str | None, typer.Option(help="How int8 finds ranges: mean-min-max (unless given), min-max, percentile-99.999, kl or mse.")
]
CompareRanges = Annotated[
    bool, typer.Option("--compare-ranges", help="Make an int8 artifact for each way to find ranges below --out, and compare them.")
]
PairTaps = Annotated[
    bool,
    typer.Option(
        "--pair-taps",
        help="Lay taps of 5x5x5 kernels over 32 channels or fewer in pairs, where there are any: int8 for OpenVINO on a CPU with AMX.",
    ),
]
Operators = Annotated[
    str | None,
    typer.Option(help="What int8 for ONNX Runtime quantizes: conv (unless given), conv+moves, all, or auto: the fastest, timed here."),
]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the options ask for."""

    estimator: str | None
    compared: bool
    operators: str | None

    @property
    def measured(self) -> bool:
        """Whether the operators are to be timed."""
        return self.operators == AUTO

    def options(self) -> dict[str, Any]:
        """For `quantize`."""
        return {"estimator": self.estimator, "operators": self.operators}


def parse_choice(method: str, runtime: str, ranges: str | None, compared: bool, operators: str | None, *, rewritten: bool) -> Choice:
    """What the options ask for.

    Raises:
        InputError: one is unknown, or does not go with the others.
    """
    from edge_latup.quantize.estimators import parse_estimator
    from edge_latup.quantize.methods import check_estimator
    from edge_latup.quantize.onnxruntime_int8 import check_operators

    estimator = None if ranges is None else parse_estimator(ranges)
    check_estimator(method, estimator)
    if compared and method != "int8":
        raise InputError(f"{method} has no ranges of activations to compare", "leave out --compare-ranges, or add --method int8")
    if compared and (runtime == "all" or estimator or rewritten or operators == AUTO):
        raise InputError(
            "--compare-ranges makes every candidate in one way for one runtime",
            "name the --runtime, and leave out --ranges, --rewrite auto and --operators auto",
        )
    if operators is not None:
        if method != "int8" or runtime != "onnxruntime":
            raise InputError("only int8 for ONNX Runtime chooses operators", "leave out --operators, or add --runtime onnxruntime")
        if operators == AUTO and rewritten:
            raise InputError("--operators auto and --rewrite auto are measured one at a time", "choose the operators first, then name them")
        if operators != AUTO:
            check_operators(operators)
    return Choice(estimator=estimator, compared=compared, operators=operators)


def show_comparison(source: Artifact, out: Path, runtime: RuntimeName, options: dict[str, Any]) -> None:
    """Make and compare the candidates; print one table, what it is based on, and which has the least error."""
    from edge_latup.quantize.compare_ranges import compare_ranges
    from edge_latup.quantize.estimators import slug

    found = compare_ranges(source, out, runtime=runtime, progress=output.note, **options)
    output.table(f"Ranges of int8 for {runtime}: {found.basis}", COLUMNS, [_row(row) for row in found.rows])
    output.note("errors: mean squared error of 8 bits over the tensor's mean square, computed from histograms of every calibration input")
    where = "reference numerics, not executed in TensorRT" if runtime == "tensorrt" else f"executed in {runtime}"
    output.note(f"relative L2 and Dice: against FP32 on {found.crops} calibration crops, {where}; `edge-latup gate` judges on other cases")
    output.result(found.model_dump(mode="json"), f"least output error on these crops: --ranges {slug(found.chosen)}, {_folder(found, out)}")


def _folder(found: RangeComparison, out: Path) -> Path:
    return out / next(row.folder for row in found.rows if row.estimator == found.chosen)


def _row(row: EstimatorRow) -> tuple[str, ...]:
    return (
        row.folder, f"{row.model_bytes / 1e6:.2f}", f"{row.clipped:.4%}", f"{row.median_error:.1e}", f"{row.worst.relative:.1e}",
        row.worst.tensor, f"{row.relative_l2:.4f}", *(f"{row.agreement[region]:.4f}" for region in row.agreement),
    )  # fmt: skip
