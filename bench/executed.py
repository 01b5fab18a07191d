"""Whether what was timed is what the artifact declares; a row that is not what it says is never accepted."""

from __future__ import annotations

from typing import Final

from edge_latup.bench.records import TimingRow
from edge_latup.bench.summary import int8_convolutions
from edge_latup.manifest import Precision
from edge_latup.runtimes.audit import shortfall

EXECUTED_NAMES: Final[dict[Precision, str]] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""How runtimes call the float precisions."""


def not_executed(row: TimingRow) -> str | None:
    """What of the declared precision did not run, in words; None where it ran, but for the audit's tolerance."""
    declared = EXECUTED_NAMES.get(row.precision)
    if declared is not None and row.executed_float != declared:
        return f"declared {row.precision.upper()}, executed {row.executed_float}"
    if row.audit is not None:
        return shortfall(row.audit)
    eight, total = int8_convolutions(row)
    if row.precision == "int8" and not eight:
        return f"declared INT8, executed none ({total} convolutions, none in i8)"
    return None
