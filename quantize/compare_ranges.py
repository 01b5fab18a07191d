"""One INT8 artifact for every way to find ranges, side by side: what each clips, what it costs tensors, and what it does to outputs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import MANIFEST_NAME, Artifact, refuse_existing
from edge_latup.errors import ArtifactError
from edge_latup.manifest import RuntimeName
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.quantize.calibration import Calibration, Image
from edge_latup.quantize.estimators import ESTIMATORS, slug
from edge_latup.quantize.methods import check_calibration, choose, quantize
from edge_latup.quantize.prepared import looker, prepare
from edge_latup.quantize.range_errors import TensorError, tensor_errors
from edge_latup.quantize.tensorrt_int8 import simulate
from edge_latup.records import Record, write_record
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import labels_of
from edge_latup.segmentation.parity import compare
from edge_latup.spec import Region

METHOD: Final = "int8"
FILE_NAME: Final = "ranges.json"
MOST_CROPS: Final = 4
"""Calibration crops that are run through every artifact, evenly spread over them all."""
BASIS: Final = "calibration data, not an evaluation"


class EstimatorRow(Record):
    """One way to find ranges, and the artifact made with it."""

    estimator: str
    folder: str
    """Below the comparison's."""
    model_bytes: int
    clipped: float
    """Share of values outside their range, mean over tensors."""
    median_error: float
    """Of the tensors' mean squared errors, each as a share of its mean square."""
    worst: TensorError
    tensors: tuple[TensorError, ...]
    relative_l2: float
    """Mean distance of the outputs from FP32's on the crops."""
    agreement: dict[Region, float]
    """Mean Dice with FP32's segmentation on the crops."""


class RangeComparison(Record):
    """What a comparison found; `chosen` has the least `relative_l2`, of equals the first."""

    runtime: RuntimeName
    rows: tuple[EstimatorRow, ...]
    calibration_inputs: int
    crops: int
    basis: str = BASIS
    chosen: str


Infer = Callable[[Image], NDArray[np.float32]]


def compare_ranges(
    artifact: Artifact, out: Path, *, runtime: RuntimeName, calibration: Calibration, overwrite: bool = False,
    progress: Callable[[str], None] = lambda text: None, **options: Any,
) -> RangeComparison:  # fmt: skip
    """Make `out`/ESTIMATOR for every one of `ESTIMATORS` from one look at the inputs, compare them, and write `out`/ranges.json.

    Tensor errors are computed from histograms; outputs were executed on the runtime (TensorRT's are reference numerics).
    `options` are those of `quantize`.

    Raises:
        ArtifactError: `out` is an artifact, or one of the folders is taken. Nothing was made.
        EdgeLatupError: as `quantize`.
    """
    choose(METHOD, runtime)
    check_calibration(METHOD, given=True)
    folders = _folders(out, overwrite)
    crops = _spread(calibration.inputs)
    progress("looking at the calibration inputs")
    with prepare(
        artifact.model_path, calibration.inputs, outputs=runtime == "onnxruntime", tell=progress, runtime=looker(artifact)
    ) as prepared:
        progress("counting their values")
        prepared = prepared.with_histograms()
        expected = _outputs(artifact, runtime, crops)
        rows = []
        for estimator, folder in folders.items():
            progress(f"ranges by {estimator}")
            own = prepared.by(estimator)
            made = quantize(
                artifact, METHOD, folder, runtime=runtime, calibration=calibration, prepared=own, overwrite=overwrite, **options
            )  # fmt: skip
            errors = tensor_errors(own.histograms, own.known, runtime)
            rows.append(_row(estimator, made, errors, expected, _outputs(made, runtime, crops)))
    found = RangeComparison(
        runtime=runtime, rows=tuple(rows), calibration_inputs=len(calibration.inputs), crops=len(crops),
        chosen=min(rows, key=lambda row: row.relative_l2).estimator,
    )  # fmt: skip
    write_record(found, out / FILE_NAME)
    return found


def _folders(out: Path, overwrite: bool) -> dict[str, Path]:
    if (out / MANIFEST_NAME).exists():
        raise ArtifactError(f"{out} is an artifact", "choose another --out: a folder to hold an artifact for each way to find ranges")
    folders = {estimator: out / slug(estimator) for estimator in ESTIMATORS}
    for folder in folders.values():
        refuse_existing(folder, overwrite)
    return folders


def _spread(inputs: Sequence[Image]) -> list[Image]:
    numbers = np.linspace(0, len(inputs) - 1, min(MOST_CROPS, len(inputs))).round().astype(int)
    return [inputs[number] for number in numbers]


def _outputs(artifact: Artifact, runtime: RuntimeName, crops: Sequence[Image]) -> list[NDArray[np.float32]]:
    with _opened(artifact, runtime) as infer:
        return [infer(crop) for crop in crops]


@contextmanager
def _opened(artifact: Artifact, runtime: RuntimeName) -> Iterator[Infer]:
    if runtime == "tensorrt":
        yield lambda crop: simulate(artifact.model_path, crop)
    else:
        with open_session(artifact, runtime) as session:
            yield session.infer


def _row(
    estimator: str, made: Artifact, errors: Sequence[TensorError], expected: Sequence[NDArray[np.float32]],
    found: Sequence[NDArray[np.float32]],
) -> EstimatorRow:  # fmt: skip
    if not errors:
        raise ArtifactError(f"every activation of {made.folder} is zero on the calibration inputs", "look at the cases and the checkpoint")
    spec = made.manifest.spec
    pairs = list(zip(expected, found, strict=True))
    dice = [dice_by_region(labels_of(spec, one[0]), labels_of(spec, other[0])) for one, other in pairs]
    return EstimatorRow(
        estimator=estimator, folder=made.folder.name, model_bytes=made.manifest.model_size, tensors=tuple(errors),
        clipped=statistics.fmean(error.clipped for error in errors), worst=max(errors, key=lambda error: error.relative),
        median_error=statistics.median(error.relative for error in errors),
        relative_l2=statistics.fmean(compare(*pair, regions=spec.regions is not None)["relative_l2"] for pair in pairs),
        agreement={region: statistics.fmean(one[region] for one in dice) for region in dice[0]},
    )  # fmt: skip
