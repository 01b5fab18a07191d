"""What a foreign model computes, untouched and in its own layout, and whether that is what its spec says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import ArtifactError
from edge_latup.export.foreign_check import axes_of
from edge_latup.export.foreign_model import Foreign, last_operation
from edge_latup.export.foreign_spec import HOUSE, LAYOUTS, ImportSpec, Layout
from edge_latup.runtimes.onnxruntime import failures

Array = NDArray[np.float32]
DIVISORS: Final = (2, 4, 8, 16, 32)
"""Multiples of these are tried where a model does not take the declared size."""
COMMON_DIVISOR: Final = 16
"""Most networks halve their input four times."""
SLACK: Final = 1e-4
"""By which a probability may lie outside [0, 1]."""


def to_foreign(batch: Array, how: ImportSpec) -> Array:
    """A batch float32 (1, C, x, y, z) in the foreign model's own layout."""
    source = batch[0] if how.flat else batch
    order = HOUSE[1:] if how.flat else HOUSE
    return np.ascontiguousarray(np.transpose(source, [order.index(letter) for letter in how.input_letters]))


def from_foreign(output: Array, how: ImportSpec) -> Array:
    """A foreign output as (1, K, x, y, z)."""
    order = HOUSE[1:] if how.flat else HOUSE
    turned = np.transpose(output, [how.output_letters.index(letter) for letter in order])
    return turned[None] if how.flat else turned


def activated(values: Array, how: ImportSpec) -> Array:
    """Probabilities (1, K, x, y, z) of a foreign output in that order, computed in float64 apart from the graph."""
    wide = values.astype(np.float64)
    if how.activation == "softmax":
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide = powers / powers.sum(axis=1, keepdims=True)
    elif how.activation == "sigmoid":
        wide = 1 / (1 + np.exp(-wide))
    return (wide if how.foreground is None else wide[:, [how.foreground]]).astype(np.float32)


def run_original(foreign: Foreign, output: str, batch: Array) -> Array:
    """What the untouched file computes in ONNX Runtime, in its own layout: `output` for a batch (1, C, x, y, z).

    Raises:
        ArtifactError: ONNX Runtime cannot load it, or it does not take this size; the hint says which sizes it takes.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(foreign.path), settings, providers=["CPUExecutionProvider"])
    except failures() as error:
        raise ArtifactError(f"ONNX Runtime cannot load {foreign.path}: {_reason(error)}", "export the network to ONNX again") from error

    def run(given: Array) -> Array:
        name = next(value.name for value in session.get_inputs())
        found: Array = session.run([output], {name: to_foreign(given, foreign.how)})[0]
        return found

    try:
        return run(batch)
    except failures() as error:
        fits = next((size for size in _larger(batch.shape[2:], foreign) if _runs(run, batch.shape[1], size)), None)
        raise ArtifactError(
            f"{foreign.path} does not run on an input of {batch.shape[2:]}: {_reason(error)}",
            foreign.change("size", str(list(fits))) + ", which it takes; divisor too" if fits else "find out which sizes the network takes",
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _larger(size: Sequence[int], foreign: Foreign) -> Iterator[tuple[int, ...]]:
    """The size rounded up to multiples; slices are as many as they are."""
    kept = set("xyz") - set(axes_of(foreign.how.input_letters))
    for divisor in DIVISORS:
        larger = tuple(side if letter in kept else -(-side // divisor) * divisor for letter, side in zip("xyz", size, strict=True))
        if larger != size:
            yield larger


def _runs(run: Callable[[Array], Array], channels: int, size: tuple[int, ...]) -> bool:
    try:
        run(np.zeros((1, channels, *size), np.float32))
    except failures():
        return False
    return True


def check_output(foreign: Foreign, name: str, raw: Array) -> Array:
    """The output (1, K, x, y, z), of the size, channels and range of values that the spec says.

    Raises:
        ArtifactError: it is not; the message says what was found, the hint which line to change.
    """
    how, told = foreign.how, f"{foreign.path} gives {name} {raw.dtype} {raw.shape}"
    if raw.ndim != len(how.layout):
        others = [str(output) for output in foreign.model.outputs if output.name != name]
        hint = f"its other outputs: {'; '.join(others)}" if others else "export the network so that it gives one value a voxel"
        raise ArtifactError(f"{told}; layout {how.layout} has {len(how.layout)} axes", hint)
    found = from_foreign(raw, how)
    _check_channels(foreign, told, found)
    _check_size(foreign, told, found.shape[2:])
    _check_values(foreign, name, found)
    return found


def _check_channels(foreign: Foreign, told: str, found: Array) -> None:
    model, how = foreign.spec.model, foreign.how
    count, want = found.shape[1], model.channels if len(foreign.spec.imports) == 1 else 1
    if how.foreground is not None:
        if how.foreground >= count:
            raise ArtifactError(f"{told}: {count} channels, foreground is {how.foreground}", foreign.change("foreground", str(count - 1)))
        return
    if count == want:
        return
    turned = [layout for layout in _other_layouts(how) if _as(found, how, layout).shape[1:] == (want, *model.output_size)]
    if turned:
        hint = foreign.change("output_layout", json.dumps(turned[0]))
    elif model.regions is not None:
        hint = foreign.change("order", json.dumps(["WT", "TC", "ET"][:count])) + " (in the order the network was trained on)"
    else:
        hint = foreign.change("labels", str(list(range(count)))) + " (the canonical label of each channel), or add [regions]"
    raise ArtifactError(
        f"{told}: {count} channels along axis {how.output_letters.index('C')}, the spec has {want} {model.channel_kind}", hint
    )


def _other_layouts(how: ImportSpec) -> list[Layout]:
    return [layout for layout in LAYOUTS if len(layout) == len(how.layout) and layout != (how.output_layout or how.layout)]


def _as(found: Array, how: ImportSpec, layout: Layout) -> Array:
    """The output read in another layout."""
    order = HOUSE[1:] if how.flat else HOUSE
    raw = np.transpose(found[0] if how.flat else found, [order.index(letter) for letter in how.output_letters])
    return from_foreign(raw, how.model_copy(update={"output_layout": layout}))


def _check_size(foreign: Foreign, told: str, sizes: tuple[int, ...]) -> None:
    model = foreign.spec.model
    if sizes == model.output_size:
        return
    size = model.spatial.size
    lost = [whole - part for whole, part in zip(size, sizes, strict=True)]
    ratios = {whole / part for whole, part in zip(size, sizes, strict=True)}
    if len(ratios) == 1 and ratios != {1.0}:
        others = [str(output) for output in foreign.model.outputs]
        hint = f"an output at the input's resolution is needed; it has: {'; '.join(others)}"
    elif any(part < 0 or part % 2 for part in lost):
        even = [-(-side // COMMON_DIVISOR) * COMMON_DIVISOR for side in size]
        hint = f"an output is as large as its input, or smaller by as many voxels on both sides; {foreign.change('size', str(even))}?"
    else:
        hint = foreign.change("output_margin", str([part // 2 for part in lost]))
    raise ArtifactError(f"{told}: {sizes} along x, y, z for an input of {size}, the spec says {model.output_size}", hint)


def _check_values(foreign: Foreign, name: str, found: Array) -> None:
    if not np.isfinite(found).all():
        raise ArtifactError(f"{foreign.path} gives NaN or infinity in {name}", "this model cannot be used")
    how, low, high = foreign.how, float(found.min()), float(found.max())
    told = f"{foreign.path} gives values from {low:.4g} to {high:.4g} in {name}"
    inside = low >= -SLACK and high <= 1 + SLACK
    if how.activation == "none" and not inside:
        better = "softmax" if foreign.spec.model.regions is None or how.foreground is not None else "sigmoid"
        raise ArtifactError(f"{told}, which are no probabilities", foreign.change("activation", json.dumps(better)))
    shares = found.shape[1] > 1 and bool(np.abs(found.sum(axis=1, dtype=np.float64) - 1).max() < SLACK)
    if inside and (
        (how.activation == "softmax" and shares) or (how.activation == "sigmoid" and last_operation(foreign.model, name) == "Sigmoid")
    ):
        raise ArtifactError(f"{told}, which are probabilities already", foreign.change("activation", '"none"'))
    if how.activation == "softmax" and found.shape[1] == 1:
        raise ArtifactError(f"{told}, in one channel: a softmax of it is 1 everywhere", foreign.change("activation", '"sigmoid"'))
