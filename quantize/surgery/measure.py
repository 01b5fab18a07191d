"""Two models side by side on the runtime that will run them: equal outputs, and which is faster beyond the noise."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_latup.artifact import Artifact
from edge_latup.manifest import RuntimeName
from edge_latup.quantize.surgery.timing import Timing, TimingJob
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.fresh import run_fresh
from edge_latup.segmentation.parity import compare, parity_input

LEAST_NOISE: Final = 0.01
"""No ratio is told from 1 by less than this, however well a few pairs happen to agree."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much to measure: pairs of processes, one for each model, and the seconds of runs in each (two runs at least)."""

    pairs: int = 5
    seconds: float = 2.0


class Comparison(Record):
    """Pairs of measurements, one process each, neighbours in time and in turn the one or the other first."""

    before_ms: tuple[float, ...]
    """Median run of each process with the model as it was."""
    after_ms: tuple[float, ...]
    before_peak_bytes: int
    """Largest of the processes."""
    after_peak_bytes: int
    threads: int
    """CPU threads of each process."""
    difference: dict[str, float]
    """Of the outputs on one real-sized input."""

    @property
    def ratios(self) -> list[float]:
        """Time after by time before, pair by pair: below 1 is faster."""
        return [after / before for before, after in zip(self.before_ms, self.after_ms, strict=True)]

    @property
    def ratio(self) -> float:
        """The median pair's."""
        return statistics.median(self.ratios)

    @property
    def noise(self) -> float:
        """The range of the middle half of the pairs, at least `LEAST_NOISE`: a disturbed pair or two do not count."""
        low, high = np.percentile(self.ratios, (25, 75))
        return max(float(high - low), LEAST_NOISE)

    @property
    def slower(self) -> bool:
        """Whether the model after is slower beyond the noise."""
        return self.ratio > 1 + self.noise

    @property
    def faster(self) -> bool:
        """Whether the model after is faster beyond the noise."""
        return self.ratio < 1 - self.noise

    def in_words(self) -> str:
        """Ratio, noise and number."""
        return f"{self.ratio:.3f} of the time before (noise {self.noise:.3f}, {len(self.ratios)} pairs)"


def compare_models(
    before: Artifact, after: Artifact, runtime: RuntimeName, effort: Effort, tell: Callable[[str], None] = lambda _: None
) -> Comparison:  # fmt: skip
    """Run both models on the parity input, in turn and each time in a fresh process.

    Raises:
        ArtifactError: an output holds NaN, or their shapes differ.
        EdgeLatupError: a model does not load or run.
    """
    spec = before.manifest.spec
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as name:
        folder = Path(name)
        np.save(folder / "batch.npy", parity_input(spec, spec.spatial.size))
        found: tuple[list[Timing], list[Timing]] = ([], [])
        for pair in range(effort.pairs):
            for side in (0, 1) if pair % 2 else (1, 0):
                output = None if pair else folder / f"output-{side}.npy"
                found[side].append(_timed((before, after)[side], runtime, folder, effort, output))
            if not pair:
                outputs = [np.load(folder / f"output-{side}.npy", allow_pickle=False) for side in (0, 1)]
                difference = compare(*outputs, regions=spec.regions is not None)
            tell(f"pair {pair + 1} of {effort.pairs}: {_median(found[1][-1]) / _median(found[0][-1]):.3f} of the time before")
    peaks = [max(timing.peak_rss_bytes for timing in side) for side in found]
    times = [tuple(_median(timing) for timing in side) for side in found]
    return Comparison(
        before_ms=times[0], after_ms=times[1], before_peak_bytes=peaks[0], after_peak_bytes=peaks[1],
        threads=SessionOptions().thread_count, difference=difference,
    )  # fmt: skip


def _timed(model: Artifact, runtime: RuntimeName, folder: Path, effort: Effort, output: Path | None) -> Timing:
    job = TimingJob(
        folder=str(model.folder.resolve()), manifest=model.manifest, runtime=runtime, batch=str(folder / "batch.npy"),
        output=None if output is None else str(output), seconds=effort.seconds,
    )  # fmt: skip
    write_record(job, folder / "job.json")
    run_fresh(
        "edge_latup.quantize.surgery.timing", [str(folder / "job.json"), str(folder / "timing.json")], f"{model.folder.name} on {runtime}"
    )
    return read_record(Timing, folder / "timing.json")


def _median(timing: Timing) -> float:
    return statistics.median(timing.samples_ms)
