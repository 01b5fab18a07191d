"""The passes: one dict in the order in which they are tried, and the rewrite that applies some of them to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize.surgery.batch_norm import fold_batch_norm, stale_batch_norms
from edge_latup.quantize.surgery.graph import forget_shapes
from edge_latup.quantize.surgery.no_ops import remove_no_ops
from edge_latup.quantize.surgery.padding import channel_padding
from edge_latup.quantize.surgery.shuffle import shuffle_to_transposed, transposed_to_shuffle
from edge_latup.quantize.surgery.upsampling import fuse_upsampling

if TYPE_CHECKING:
    import onnx

Rewrite = Callable[["onnx.GraphProto"], int]
"""Rewrites a graph in place and returns how many places it changed."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """An exact rewrite. `by_default`: it never adds work; the others are for those who ask, and measure."""

    apply: Rewrite
    summary: str
    by_default: bool = False


FOLD_BATCH_NORM: Final = "fold-batch-norm"
PASSES: Final[dict[str, Pass]] = {
    "remove-no-ops": Pass(apply=remove_no_ops, by_default=True, summary="nodes that hand on what they are given"),
    FOLD_BATCH_NORM: Pass(apply=fold_batch_norm, by_default=True, summary="batch normalisation into the convolutions before it"),
    "fuse-upsampling": Pass(apply=fuse_upsampling, by_default=True, summary="nearest x2 and 2^n convolution to one transposed convolution"),
    "transposed-to-shuffle": Pass(apply=transposed_to_shuffle, summary="transposed convolution k2 s2 to 1^n convolution and shuffle"),
    "shuffle-to-transposed": Pass(apply=shuffle_to_transposed, summary="1^n convolution and shuffle to transposed convolution k2 s2"),
    **{
        f"pad-channels-{multiple}": Pass(apply=channel_padding(multiple), summary=f"inner channels to a multiple of {multiple}")
        for multiple in (8, 16, 32)
    },
}
TOLERANCE: Final = {"max_abs": 1e-4, "relative_l2": 1e-4, "argmax_agreement": 0.9999}
"""Against the graph before, same runtime, FP32: only the order of sums differs."""
DEFAULT: Final = tuple(name for name, each in PASSES.items() if each.by_default)


def choose_passes(asked: Sequence[str]) -> tuple[str, ...]:
    """The passes that were asked for, in the order of `PASSES`; those that never add work where none was.

    Raises:
        InputError: there is no such pass.
    """
    for name in asked:
        if name not in PASSES:
            raise InputError(f"unknown pass {name!r}", f"choose some of: {', '.join(PASSES)}")
    return tuple(name for name in PASSES if name in asked) if asked else DEFAULT


def rewrite(source: Path, destination: Path, passes: Sequence[str] = DEFAULT) -> dict[str, int]:
    """Apply passes to an ONNX file; returns how many places each changed. The file is written also where nothing was."""
    import onnx

    model = onnx.load(source, load_external_data=False)
    noted = {value.name for value in model.graph.value_info}
    changed: dict[str, int] = {}
    for name in passes:
        # The passes look sizes and types up in the graph.
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        changed[name] = PASSES[name].apply(model.graph)
    forget_shapes(model.graph, {value.name for value in model.graph.value_info} - noted)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, destination)
    return changed


def refuse_stale_batch_norm(source: Path, passes: Sequence[str]) -> None:
    """Refuse to fold statistics that were never updated.

    Raises:
        ArtifactError: with the names of the normalisations.
    """
    import onnx

    if FOLD_BATCH_NORM not in passes:
        return
    if stale := stale_batch_norms(onnx.load(source, load_external_data=False).graph):
        others = ",".join(name for name in passes if name != FOLD_BATCH_NORM)
        raise ArtifactError(
            f"every moving mean of {source} is 0 and every variance 1 while scales were learnt ({', '.join(stale)}): the statistics "
            "were never updated, so what folds is not the network that was trained, which took those of each batch",
            "estimate them anew and export again; add --trust-batch-norm where these numbers are meant"
            + (f", or fold nothing: --passes {others}" if others else ""),
        )
