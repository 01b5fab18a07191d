"""The slice of a case that a report shows: cut once, when the predictions exist, and kept with the records."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.store import Picture
from edge_latup.cases.read import Case
from edge_latup.segmentation.prepare import oriented
from edge_latup.spec import ModelSpec

Labels = NDArray[np.uint8]
ScalarT = TypeVar("ScalarT", bound=np.generic)


def _for_display(plane: NDArray[ScalarT]) -> NDArray[ScalarT]:
    """An axial LPS plane (x, y) as rows and columns: anterior up, the patient's right on the left.

    In LPS, x grows to the patient's left and y to the back: rows are y, columns are x, no flip is needed.
    """
    return np.ascontiguousarray(plane.T)


def _head_window(volume: NDArray[np.float32], index: int) -> tuple[slice, slice]:
    """The head's bounding box in a slice, with a small margin, so that air does not fill the picture."""
    head = volume[:, :, index] > 0
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    if not rows.size:
        return slice(None), slice(None)
    return slice(max(int(rows[0]) - 4, 0), int(rows[-1]) + 5), slice(max(int(columns[0]) - 4, 0), int(columns[-1]) + 5)


def cut_picture(case: Case, spec: ModelSpec, predictions: dict[str, Labels]) -> Picture:
    """The most telling axial slice of a case: images, the label where there is one, and one prediction per artifact.

    It is the slice with the most tumour in the label, or in the first prediction where there is no label.
    """
    turned = {name: _as_lps(case, array) for name, array in predictions.items()}
    label = None if case.label is None else _as_lps(case, case.label)
    shown = label if label is not None and label.any() else next(iter(turned.values()))
    index = int(np.argmax((shown > 0).sum(axis=(0, 1)))) if shown.any() else shown.shape[2] // 2
    volumes = dict(zip(spec.modalities, oriented(case, spec.model_copy(update={"orientation": "LPS"})), strict=True))
    window = _head_window(next(iter(volumes.values())), index)
    return Picture(
        case=case.name,
        slice_index=index,
        images={modality: _windowed(volume, window, index) for modality, volume in volumes.items()},
        label=None if label is None else _for_display(label[(*window, index)]),
        predictions={name: _for_display(array[(*window, index)]) for name, array in turned.items()},
    )


def _as_lps(case: Case, labels: Labels) -> Labels:
    return case.grid.reorient(labels, "LPS")


def _windowed(volume: NDArray[np.float32], window: tuple[slice, slice], index: int) -> NDArray[np.float32]:
    """The slice in [0, 1], white at the 99.5th percentile of the head."""
    head = volume[volume > 0]
    top = float(np.percentile(head, 99.5)) if head.size else 1.0
    shown: NDArray[np.float32] = np.clip(_for_display(volume[(*window, index)]) / top, 0, 1).astype(np.float32)
    return shown
