"""An FP32 graph made ready for static INT8: its channels equalised, its activations' ranges known. Every runtime starts from it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.calibration import Image
from edge_latup.quantize.equalise import equalise, tensors_to_watch
from edge_latup.quantize.onnx_graph import CONVOLUTIONS, GraphIndex
from edge_latup.quantize.ranges import ChannelRanges, Ranges, channel_ranges, usual

if TYPE_CHECKING:
    import onnx

ESTIMATOR: Final = "mean min-max"
"""How ranges are found: each input's smallest and largest value, averaged over the inputs, as NNCF does by default."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The file to quantize, which exists while `prepare` is open, and what calibration found in it.

    source: the file it was made of. found: what its channels hold, before they were equalised. inputs: the calibration inputs,
    float32 (1, C, D, H, W) each. known: ranges of the activations that convolutions read, by name. estimator: how they were found.
    equalised_channels: how many channels were given another scale.
    """

    source: Path
    found: ChannelRanges
    path: Path
    inputs: Sequence[Image]
    known: Ranges
    estimator: str
    equalised_channels: int

    def ranges_of(self, tensors: Sequence[str]) -> Ranges:
        """Ranges of activations; those that were not foreseen cost another pass over the inputs.

        Raises:
            InputError: there is no such tensor, or calibration met NaN.
        """
        missing = [name for name in tensors if name not in self.known]
        found = usual(channel_ranges(self.path, missing, self.inputs)) if missing else {}
        return {name: found[name] if name in found else self.known[name] for name in tensors}


@contextmanager
def prepare(
    source: Path, inputs: Sequence[Image], *, equalised: bool = True, like: Prepared | None = None
) -> Iterator[Prepared]:  # fmt: skip
    """Look at what the calibration inputs do inside an FP32 ONNX file, once for all runtimes.

    `like` is what the same inputs did inside a file of which this one is an exact rewrite: tensors that kept their names are not
    looked at again.

    Raises:
        InputError: there are no inputs, or a value is NaN or infinite.
    """
    import onnx

    model = onnx.load(source, load_external_data=False)
    watched = tensors_to_watch(model) if equalised else ()
    found = _found(source, [*activations(model.graph), *watched], inputs, {} if like is None else like.found)
    factors = equalise(model, {name: _peaks(found[name]) for name in watched}) if equalised else {}
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
        path = Path(scratch) / "prepared.onnx"
        onnx.save(model, path)
        yield Prepared(
            source=source, found=found, path=path, inputs=inputs, known=usual(_divided(found, factors)), estimator=ESTIMATOR,
            equalised_channels=int(sum((values != 1).sum() for values in factors.values())),
        )  # fmt: skip


def _found(source: Path, tensors: Sequence[str], inputs: Sequence[Image], before: ChannelRanges) -> ChannelRanges:
    missing = [name for name in tensors if name not in before]
    seen = channel_ranges(source, missing, inputs) if missing else {}
    return {name: before[name] if name in before else seen[name] for name in tensors}


def activations(graph: onnx.GraphProto) -> tuple[str, ...]:
    """What convolutions read, up-sampled or not, and both sides of the concats in between."""
    index = GraphIndex(graph)
    wanted = dict.fromkeys(node.input[0] for node in graph.node if node.op_type in CONVOLUTIONS)
    for node in reversed(graph.node):
        if node.op_type in ("Concat", "Resize") and node.output[0] in wanted:
            wanted |= dict.fromkeys(node.input[:1] if node.op_type == "Resize" else node.input)
    return tuple(name for name in wanted if not index.is_constant(name))


def _peaks(ranges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Largest magnitude of each channel, of (inputs, 2, C)."""
    peaks: NDArray[np.float32] = np.abs(ranges).max(axis=(0, 1)).astype(np.float32)
    return peaks


def _divided(found: ChannelRanges, factors: dict[str, NDArray[np.float32]]) -> ChannelRanges:
    return {name: ranges / factors[name] if name in factors else ranges for name, ranges in found.items()}
