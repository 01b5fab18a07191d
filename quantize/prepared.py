"""An FP32 graph made ready for static INT8: its channels equalised, its activations' ranges known. Every runtime starts from it."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact
from edge_latup.quantize.calibration import Image
from edge_latup.quantize.equalise import equalise, tensors_to_watch
from edge_latup.quantize.estimators import COUNTING, MEAN_MIN_MAX, MSE, THRESHOLDS, estimated
from edge_latup.quantize.histograms import Histogram, find_histograms, histogram_of
from edge_latup.quantize.onnx_graph import CONVOLUTIONS, GraphIndex
from edge_latup.quantize.pace import Tell, paced, silent
from edge_latup.quantize.ranges import ChannelRanges, Look, Looker, Ranges, Samples, look, widest
from edge_latup.runtimes import ARM, RUNTIMES

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The file to quantize, which exists while `prepare` is open, and what calibration found in it.

    source: the file it was made of. found: what its channels hold, before they were equalised. samples: some of their values then.
    held: what they hold in the file. sampled: histograms of some of their values there. inputs: the calibration inputs, float32
    (1, C, D, H, W) each. known: ranges of activations that quantizers will be put on, by name. estimator: how they were found.
    equalised_channels: how many channels were given another scale. foreseen: activations of which histograms are made, where an
    estimator wants them. runtime: what computes ranges. histograms: those of all values, made so far. tell: gets a line now and then.
    """

    source: Path
    found: ChannelRanges
    samples: Samples
    held: ChannelRanges
    sampled: dict[str, Histogram]
    path: Path
    inputs: Sequence[Image]
    known: dict[str, tuple[float, float]]
    estimator: str
    equalised_channels: int
    foreseen: tuple[str, ...]
    runtime: Looker
    histograms: dict[str, Histogram] = field(default_factory=dict)
    tell: Tell = silent

    def ranges_of(self, tensors: Sequence[str], inside: Path | None = None) -> Ranges:
        """Ranges of activations; those that were not foreseen cost another pass over the inputs, or two, the first time.

        `inside` is a file in which to look for them, where it is not the prepared one but computes the same.

        Raises:
            InputError: there is no such tensor, or calibration met NaN.
        """
        path = inside or self.path
        missing = [name for name in tensors if name not in self.known]
        found: Ranges = {}
        if missing:
            seen = _look(path, missing, self.inputs, self.tell, self.runtime, whole=True)
            self.sampled.update(_histograms(seen.samples, seen.ranges))
            found = self._estimated(seen.ranges, path)
        if inside is None:
            # For the next candidate of a search, which puts its quantizers in the same places but few.
            self.known.update(found)
        return {name: found[name] if name in found else self.known[name] for name in tensors}

    def by(self, estimator: str) -> Prepared:
        """The same with ranges found in another way; the inputs are looked at again where that wants histograms and there are none."""
        if estimator == self.estimator:
            return self
        other = replace(self, estimator=estimator)
        # Beside what was foreseen there are tensors that only equalising asked for: not worth a histogram.
        names = self.foreseen if estimator in COUNTING else self.held
        return replace(other, known=dict(other._estimated({name: self.held[name] for name in names}, self.path)))

    def with_histograms(self) -> Prepared:
        """The same, with the histograms of all activations that were foreseen."""
        self._count({name: self.held[name] for name in self.foreseen}, self.path)
        return self

    def _estimated(self, found: ChannelRanges, path: Path) -> Ranges:
        if self.estimator in THRESHOLDS:
            self._count(found, path)
        # Of all values where they were counted for another estimator.
        return estimated(self.estimator, found, self.sampled | self.histograms if self.estimator == MSE else self.histograms)

    def _count(self, found: ChannelRanges, path: Path) -> None:
        """Make the histograms that are missing; they are kept for other estimators."""
        missing = {name: ends for name, ends in found.items() if name not in self.histograms}
        bounds = {name: max(abs(low), abs(high)) for name, (low, high) in widest(missing).items()}
        self.histograms.update(find_histograms(path, bounds, self.inputs, tell=self.tell) if bounds else {})


@contextmanager
def prepare(
    source: Path, inputs: Sequence[Image], *, equalised: bool = True, like: Prepared | None = None, estimator: str = MEAN_MIN_MAX,
    outputs: bool = False, tell: Tell = silent, runtime: Looker = "onnxruntime",
) -> Iterator[Prepared]:  # fmt: skip
    """Look at what the calibration inputs do inside an FP32 ONNX file, once for all runtimes.

    `like` is what the same inputs did inside a file of which this one is an exact rewrite: tensors that kept their names are not
    looked at again. `estimator` is one of `ESTIMATORS`. `outputs` are of convolutions: ONNX Runtime's file quantizes them too. `tell`
    gets a line now and then: how far it is, and about how long the rest takes. `runtime` computes the ranges: see `looker`.

    Raises:
        InputError: there are no inputs, or a value is NaN or infinite.
    """
    import onnx

    model = onnx.load(source, load_external_data=False)
    watched = tensors_to_watch(model) if equalised else ()
    foreseen = activations(model.graph) + (_outputs(model.graph) if outputs else ())
    before = Look(ranges={}, samples={}) if like is None else Look(ranges=like.found, samples=like.samples)
    seen = _found(source, list(dict.fromkeys((*foreseen, *watched))), inputs, before, tell, runtime)
    found = seen.ranges
    factors = equalise(model, {name: _peaks(found[name]) for name in watched}) if equalised else {}
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
        path = Path(scratch) / "prepared.onnx"
        onnx.save(model, path)
        held = _divided(found, factors)
        samples = {name: seen.samples[name] for name in dict.fromkeys(foreseen) if name in seen.samples}
        looked = Prepared(
            source=source, found=found, samples=seen.samples, held=held, path=path, sampled=_histograms(_in_file(samples, factors), held),
            inputs=inputs, known=dict(estimated(MEAN_MIN_MAX, held, {})),
            estimator=MEAN_MIN_MAX, equalised_channels=int(sum((values != 1).sum() for values in factors.values())),
            foreseen=tuple(dict.fromkeys(foreseen)), runtime=runtime, tell=tell,
        )  # fmt: skip
        yield looked.by(estimator)


def looker(artifact: Artifact) -> Looker:
    """What computes the ranges of an FP32 artifact's activations: OpenVINO, in half the time, where it was found to compute the network.

    On ARM it has only reference kernels for 3-D convolutions.
    """
    known = "openvino" in artifact.manifest.runtimes and RUNTIMES["openvino"].is_available()
    return "openvino" if known and platform.machine() not in ARM else "onnxruntime"


def _found(source: Path, tensors: Sequence[str], inputs: Sequence[Image], before: Look, tell: Tell, runtime: Looker) -> Look:
    missing = [name for name in tensors if name not in before.ranges]
    if not missing:
        return Look(ranges={name: before.ranges[name] for name in tensors}, samples=before.samples)
    seen = _look(source, missing, inputs, tell, runtime)
    ranges = before.ranges | seen.ranges
    return Look(ranges={name: ranges[name] for name in tensors}, samples=before.samples | seen.samples)


def _look(
    path: Path, tensors: Sequence[str], inputs: Sequence[Image], tell: Tell, runtime: Looker, *, whole: bool = False
) -> Look:  # fmt: skip
    return look(path, tensors, paced(inputs, "finding ranges", tell), whole=whole, runtime=runtime)


def activations(graph: onnx.GraphProto) -> tuple[str, ...]:
    """What convolutions read, up-sampled or not, and both sides of the concats in between."""
    index = GraphIndex(graph)
    wanted = dict.fromkeys(node.input[0] for node in graph.node if node.op_type in CONVOLUTIONS)
    for node in reversed(graph.node):
        if node.op_type in ("Concat", "Resize") and node.output[0] in wanted:
            wanted |= dict.fromkeys(node.input[:1] if node.op_type == "Resize" else node.input)
    return tuple(name for name in wanted if not index.is_constant(name))


def _outputs(graph: onnx.GraphProto) -> tuple[str, ...]:
    return tuple(node.output[0] for node in graph.node if node.op_type == "Conv")


def _peaks(ranges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Largest magnitude of each channel, of (inputs, 2, C)."""
    peaks: NDArray[np.float32] = np.abs(ranges).max(axis=(0, 1)).astype(np.float32)
    return peaks


def _in_file(samples: Samples, factors: dict[str, NDArray[np.float32]]) -> Samples:
    """Samples of the source as they are in the file whose channels were divided."""
    return {name: values / factors[name][:, np.newaxis] if name in factors else values for name, values in samples.items()}


def _histograms(samples: Samples, ends: ChannelRanges) -> dict[str, Histogram]:
    """Of a part of the values; the bins reach as far as all of them do."""
    return {name: histogram_of([values], float(np.abs(ends[name]).max())) for name, values in samples.items()}


def _divided(found: ChannelRanges, factors: dict[str, NDArray[np.float32]]) -> ChannelRanges:
    return {name: ranges / factors[name] if name in factors else ranges for name, ranges in found.items()}
