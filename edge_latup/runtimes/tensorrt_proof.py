"""What an engine must show before it is kept: the precision it was asked for, and one answer to one question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from edge_latup.errors import ArtifactError
from edge_latup.manifest import AuditSummary, Precision
from edge_latup.runtimes.audit import TOLERANCE, sentence
from edge_latup.runtimes.base import Batch
from edge_latup.runtimes.tensorrt_options import SelfTest

WIDE: Final = ("fp32", "tf32")
BITS: Final = {"fp8": 8, "int8": 8, "fp16": 16, "bf16": 16, "tf32": 19, "fp32": 32}
"""Of a number that is multiplied; TF32 has the range of FP32 and the mantissa of FP16."""
REPEATS: Final = 3
"""Times that one batch is asked."""
SAME_ANSWER: Final[dict[Precision, float]] = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 8e-3, "int8": 1e-3}
"""Largest difference of a class probability between two answers to one input, by the coarsest number type in it: a row may be added up
in another order, which moves the last digits of that type and no more. Set before any engine was seen."""


def prove_precision(summary: AuditSummary, precision: Precision, *, tf32: bool) -> list[str]:
    """Refuse an engine that did not become what its file declares; returns what is worth a note.

    Raises:
        ArtifactError: layers that are declared narrower run in FP32, none in the precision asked for, or some in a narrower one.
    """
    silent = sum(layer.macs for layer in summary.mismatches if layer.executed in WIDE and layer.declared not in WIDE)
    if silent > TOLERANCE:
        raise ArtifactError(
            f"the engine was asked for {precision} and runs {100 * silent:.1f} % of its multiply-accumulates in FP32: {sentence(summary)}",
            "give a typed file: edge-latup quantize ARTIFACT --method int8 (or typed-fp16) --runtime tensorrt --float-precision fp16",
        )
    if precision != "fp32" and summary.executed and precision not in summary.executed:
        raise ArtifactError(
            f"the engine was asked for {precision} and runs no layer in it: {sentence(summary)}",
            "use the artifact of the precision that ran; or check the file's rules: edge-latup inspect ARTIFACT --rules tensorrt",
        )
    if (narrow := _narrower(summary, tf32=tf32)) > TOLERANCE:
        raise ArtifactError(
            f"the engine runs {100 * narrow:.1f} % of its multiply-accumulates narrower than the graph says: {sentence(summary)}",
            "build it with another TensorRT; where it is TF32 that ran, allow it with --tf32, and do not call the engine FP32",
        )
    unknown = sum(layer.macs for layer in summary.mismatches if layer.executed is None)
    notes = [sentence(summary)] if summary.mismatched > TOLERANCE else []
    if unknown > TOLERANCE:
        notes.append(f"for {100 * unknown:.1f} % of the multiply-accumulates the inspector names no kernel: their precision is not proven")
    return notes


def _narrower(summary: AuditSummary, *, tf32: bool) -> float:
    """Share of the multiply-accumulates that ran with fewer bits than declared: no FP32 reference, though the file is one."""
    ranks = {layer: (BITS.get(layer.executed or ""), BITS.get(layer.declared)) for layer in summary.mismatches}
    return sum(
        layer.macs for layer, (ran, asked) in ranks.items() if ran and asked and ran < asked and not (tf32 and layer.executed == "tf32")
    )


def self_test(infer: Callable[[Batch], Batch], input_shape: tuple[int, ...], *precisions: Precision) -> SelfTest:
    """Ask the same question in every row and again, with another question in between, and rows in another order.

    `infer`: the engine; `precisions`: what it computes in. A TensorRT 11.1 FP32 engine gave four answers to four identical rows
    (NVIDIA/TensorRT#4813).

    Raises:
        ArtifactError: it gave several answers, or NaN.
    """
    drawn = np.random.default_rng(0)
    question = drawn.normal(size=(1, *input_shape[1:])).astype(np.float32)
    rows = input_shape[0]
    same, other = np.repeat(question, rows, axis=0), drawn.normal(size=input_shape).astype(np.float32)
    answers = [infer(same)]
    different = infer(other)
    answers += [infer(same) for _ in range(REPEATS - 1)]
    stacked = np.concatenate(answers)
    _finite(stacked, different)
    spread = float(np.abs(stacked - stacked[:1]).max())
    if rows > 1:
        order = np.roll(np.arange(rows), 1)
        spread = max(spread, float(np.abs(infer(np.ascontiguousarray(other[order])) - different[order]).max()))
    tolerance = max(SAME_ANSWER[precision] for precision in precisions)
    if not spread <= tolerance:
        raise ArtifactError(
            f"the engine gives different answers to the same input: {len(stacked)} answers, up to {spread:.3g} apart in a probability"
            f" (allowed: {tolerance:g})",
            "do not use it: build with another TensorRT (11.1 is known for this, NVIDIA/TensorRT#4813), or with --optimisation-level 1",
        )
    return SelfTest(rows=len(stacked), max_abs=spread, tolerance=tolerance, permuted=rows > 1)


def _finite(*outputs: Batch) -> None:
    """Refuse NaN and infinities, which FP16 norms give where they overflow (NVIDIA/TensorRT#2691)."""
    for output in outputs:
        if not np.isfinite(output).all():
            raise ArtifactError(
                "the engine's output holds NaN or infinity",
                "keep norms in FP32: make the file with edge-latup quantize, which does; foreign files may not",
            )
