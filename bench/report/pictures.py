"""Slice pictures of the pictured case: reference, candidate and their difference drawn over the image."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.store import Image, Labels, LoadedRun, Picture
from edge_latup.spec import Modality

Rgb = NDArray[np.float32]
"""Float32 (H, W, 3) in [0, 1]."""
Colour = tuple[int, int, int]

SCALE: Final = 2
HEAD_MARGIN: Final = 4
TUMOUR_MARGIN: Final = 18
FILL: Final = 0.45
CLOSE_UP: Final = 380
"""Pixels that the width of an enlarged picture reaches at least."""
LABEL_COLOURS: Final[dict[int, tuple[str, Colour]]] = {
    1: ("necrotic core (NCR)", (204, 121, 167)),
    2: ("oedema (ED)", (86, 180, 233)),
    3: ("enhancing tumour (ET)", (230, 159, 0)),
}
DIFFERENCE_COLOURS: Final[dict[int, tuple[str, Colour]]] = {
    1: ("only in the reference", (255, 64, 64)),
    2: ("only in the candidate", (77, 148, 255)),
    3: ("tumour in both, of another label", (250, 204, 21)),
}
MODALITY_TITLES: Final[dict[Modality, str]] = {"flair": "FLAIR", "t1ce": "T1ce", "t2": "T2", "t1": "T1"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: title, data URI of a PNG, and what it shows in words."""

    title: str
    source: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Reference, candidate and difference for one candidate. differing: voxels of the slice by kind of difference."""

    artifact: str
    panels: tuple[Panel, ...]
    differing: dict[str, int]
    tumour: int
    """Voxels of the slice that either calls tumour."""


def case_panels(picture: Picture) -> list[Panel]:
    """The images as they are, and the label where there is one."""
    window = _window([*picture.images.values(), *_labels(picture)], HEAD_MARGIN)
    panels = [
        _panel(MODALITY_TITLES[name], _grey(_enlarged(image[window], SCALE)), f"{MODALITY_TITLES[name]} slice of {picture.case}")
        for name, image in picture.images.items()
    ]
    if picture.label is not None:
        panels.append(_overlay_panel("label", _base(picture)[window], picture.label[window], SCALE))
    return panels


def picture_rows(run: LoadedRun, picture: Picture) -> list[PictureRow]:
    """One row for each candidate."""
    return [_row(picture, run.record.reference, name) for name in run.candidates]


def difference(reference: Labels, candidate: Labels) -> Labels:
    """uint8 (H, W): 0 the same, else a key of DIFFERENCE_COLOURS."""
    kind = np.where(candidate == 0, 1, np.where(reference == 0, 2, 3))
    return np.where(reference == candidate, 0, kind).astype(np.uint8)


def _row(picture: Picture, reference: str, name: str) -> PictureRow:
    first, second = picture.predictions[reference], picture.predictions[name]
    window = _window(_labels(picture), TUMOUR_MARGIN)
    base, differing = _base(picture)[window], difference(first, second)
    scale = max(SCALE, -(-CLOSE_UP // base.shape[1]))
    dimmed = _grey(_enlarged(base, scale)) * 0.6
    panels = (
        _overlay_panel(f"reference: {reference}", base, first[window], scale),
        _overlay_panel(f"candidate: {name}", base, second[window], scale),
        _panel(
            "difference",
            _paint(dimmed, _enlarged(differing[window], scale), DIFFERENCE_COLOURS, 1.0),
            f"Where {name} and {reference} differ",
        ),
    )
    counts = {title: int(np.count_nonzero(differing == key)) for key, (title, _) in DIFFERENCE_COLOURS.items()}
    return PictureRow(artifact=name, panels=panels, differing=counts, tumour=int(np.count_nonzero((first > 0) | (second > 0))))


def _base(picture: Picture) -> Image:
    """The image that is drawn over: FLAIR, else T1ce, else the first there is."""
    return next(picture.images[name] for name in ("flair", "t1ce", *picture.images) if name in picture.images)


def _labels(picture: Picture) -> list[Labels]:
    return [*picture.predictions.values(), *([] if picture.label is None else [picture.label])]


def _window(shown: Sequence[NDArray[Any]], margin: int) -> tuple[slice, slice]:
    """The part of the slice in which any of the arrays is above zero, and `margin` pixels around it; all of it where none is."""
    inside = np.any([array > 0 for array in shown], axis=0)
    if not inside.any():
        return slice(None), slice(None)
    return _span(inside.any(axis=1), margin), _span(inside.any(axis=0), margin)


def _span(inside: NDArray[np.bool_], margin: int) -> slice:
    found = np.flatnonzero(inside)
    return slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin)


def _grey(image: Image) -> Rgb:
    return np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=2)


def _enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def _overlay_panel(title: str, base: Image, labels: Labels, scale: int) -> Panel:
    painted = _paint(_grey(_enlarged(base, scale)), _enlarged(labels, scale), LABEL_COLOURS, FILL)
    sizes = ", ".join(f"{name} {np.count_nonzero(labels == key)} voxels" for key, (name, _) in LABEL_COLOURS.items())
    return _panel(title, painted, f"{title}; on this slice: {sizes}")


def _paint(image: Rgb, labels: Labels, colours: Mapping[int, tuple[str, Colour]], opacity: float) -> Rgb:
    """Fill each label with its colour, and draw its border at full strength."""
    painted, border = image.copy(), _border(labels)
    for key, (_, colour) in colours.items():
        rgb, mask = np.asarray(colour, np.float32) / 255, labels == key
        painted[mask] = (1 - opacity) * painted[mask] + opacity * rgb
        painted[mask & border] = rgb
    return painted


def _border(labels: Labels) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another label."""
    border = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def _panel(title: str, image: Rgb, alt: str) -> Panel:
    from PIL import Image as Pillow

    data = io.BytesIO()
    Pillow.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(data, "PNG", optimize=True)
    return Panel(title=title, source=f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}", alt=alt)
