"""From a case to the network's input: orientation, normalisation, spatial policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.read import Case
from edge_latup.errors import InputError, MissingDependencyError, install_hint
from edge_latup.segmentation.standardise import match_histogram, resize_linear, resize_nearest
from edge_latup.spec import CentreCrop, ModelSpec, Normalisation, Size, SlidingWindow

Image = NDArray[np.float32]
ScalarT = TypeVar("ScalarT", bound=np.generic)
AIR: Final = 0.01
"""Share of a modality's largest value below which a voxel may be air."""
SPACING_SLACK: Final = 0.02
"""Share by which a case's voxel size may differ from the spec's."""
LEAST_DEVIATION: Final = 1e-8
"""A constant channel is divided by this."""


@dataclass(frozen=True, kw_only=True)
class CropBox:
    """Where a crop of `size` lies in a volume of `shape`; starts are negative where the volume is smaller and is padded."""

    start: Size
    size: Size
    shape: Size

    def _slices(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(in the volume, in the crop) of the part they share, whatever axes come before."""
        volume: list[Any] = [...]
        crop: list[Any] = [...]
        for start, size, length in zip(self.start, self.size, self.shape, strict=True):
            first, last = max(start, 0), min(start + size, length)
            volume.append(slice(first, last))
            crop.append(slice(first - start, last - start))
        return tuple(volume), tuple(crop)

    def cut(self, array: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """The crop of `array`, whose last three axes are the volume's; zeros where it reaches outside."""
        volume, crop = self._slices()
        out = np.zeros((*array.shape[:-3], *self.size), dtype=array.dtype)
        out[crop] = array[volume]
        return out

    def view(self, array: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """The part of `array` that lies in the box, without a copy and without padding."""
        inside: NDArray[ScalarT] = array[self._slices()[0]]
        return inside

    def paste(self, array: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """A volume of zeros with the crop put back at its place."""
        volume, crop = self._slices()
        out = np.zeros((*array.shape[:-3], *self.shape), dtype=array.dtype)
        out[volume] = array[crop]
        return out

    def within(self, margin: Size) -> CropBox:
        """What is left of the box without `margin` voxels on each side of each axis."""
        x, y, z = (start + lost for start, lost in zip(self.start, margin, strict=True))
        d, h, w = (side - 2 * lost for side, lost in zip(self.size, margin, strict=True))
        return CropBox(start=(x, y, z), size=(d, h, w), shape=self.shape)

    def add(self, array: NDArray[np.float32], total: NDArray[np.float32]) -> None:
        """Add the crop into a volume in place."""
        volume, crop = self._slices()
        total[volume] += array[crop]


def centre_box(shape: tuple[int, ...], size: Size) -> CropBox:
    """The centred crop, rounding down: on 240 x 240 x 155 a 128^3 crop starts at (56, 56, 13)."""
    x, y, z = ((length - part) // 2 for length, part in zip(shape[-3:], size, strict=True))
    a, b, c = shape[-3:]
    return CropBox(start=(x, y, z), size=size, shape=(a, b, c))


def head_mask(channels: Sequence[Image]) -> NDArray[np.bool_]:
    """Where the head is, bool (x, y, z): voxels that are above 1 % of the largest value in at least one modality.

    BraTS volumes are skull-stripped: air is 0, or rings a little around it where they were resampled. In a volume with bright
    air everything is head.
    """
    mask = np.zeros(channels[0].shape, dtype=np.bool_)
    for channel in channels:
        mask |= channel > AIR * float(channel.max())
    return mask


def nonzero_mask(channels: Sequence[Image]) -> NDArray[np.bool_]:
    """Where any modality is not 0, and whatever such voxels enclose, bool (x, y, z).

    Raises:
        MissingDependencyError: connected-components-3d is not installed.
    """
    try:
        import cc3d
    except ImportError:
        raise MissingDependencyError("filling a head's holes needs connected-components-3d", install_hint("core")) from None
    empty = np.ones(channels[0].shape, dtype=np.bool_)
    for channel in channels:
        empty &= channel == 0
    # With a border of air, all air that is not enclosed is one component.
    air = cc3d.connected_components(np.pad(empty, 1, constant_values=True).astype(np.uint8), connectivity=6)
    mask: NDArray[np.bool_] = (air != air[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return mask


def nonzero_box(channels: Sequence[Image]) -> CropBox:
    """The box of the voxels where any modality is not 0; the whole volume where there is none."""
    found = np.zeros(channels[0].shape, dtype=np.bool_)
    for channel in channels:
        found |= channel != 0
    return brain_box(found, 1)


def brain_box(head: NDArray[np.bool_], divisor: int, *, square: bool = False) -> CropBox:
    """The bounding box of the head (x, y, z), widened evenly until every side is a multiple of `divisor`.

    `square` gives x and y one size, so that the crop can be turned in the axial plane. Without a head it is the whole volume.
    """
    spans = []
    for axis, length in enumerate(head.shape):
        line = np.flatnonzero(head.any(axis=tuple(other for other in range(3) if other != axis)))
        spans.append((int(line[0]), int(line[-1]) + 1) if len(line) else (0, length))
    sides = [-(-(last - first) // divisor) * divisor for first, last in spans]
    if square:
        sides[:2] = [max(sides[:2])] * 2
    starts = [first - (side - (last - first)) // 2 for (first, last), side in zip(spans, sides, strict=True)]
    # Widening goes into the volume where there is room on the other side: padding shows the network nothing.
    starts = [min(max(start, 0), max(length - side, 0)) if side <= length else (length - side) // 2
              for start, side, length in zip(starts, sides, head.shape, strict=True)]  # fmt: skip
    x, y, z = head.shape
    return CropBox(start=(starts[0], starts[1], starts[2]), size=(sides[0], sides[1], sides[2]), shape=(x, y, z))


def min_max(image: Image, axes: tuple[int, ...]) -> Image:
    """Scale to [0, 1] over `axes`; what is constant there becomes 0."""
    low = image.min(axis=axes, keepdims=True)
    span = image.max(axis=axes, keepdims=True) - low
    scaled: Image = (image - low) / np.where(span > 0, span, 1)
    return scaled.astype(np.float32, copy=False)


def z_score(image_cxyz: Image) -> Image:
    """Each channel to mean 0 and deviation 1 over its voxels that are not 0, which stay 0; a constant channel becomes 0."""
    scaled = np.zeros_like(image_cxyz)
    for channel, out in zip(image_cxyz, scaled, strict=True):
        inside = channel != 0
        if inside.any():
            values = channel[inside].astype(np.float64)
            out[inside] = (values - values.mean()) / (values.std() or 1)
    return scaled


def z_score_within(image_cxyz: Image, mask: NDArray[np.bool_]) -> Image:
    """Each channel to mean 0 and deviation 1 over `mask` (x, y, z); voxels outside keep their value, which is 0 in what has a mask."""
    scaled = image_cxyz.astype(np.float32)
    for channel, out in zip(image_cxyz, scaled, strict=True):
        values = channel[mask].astype(np.float64)
        if values.size:
            out[mask] = (values - values.mean()) / max(values.std(), LEAST_DEVIATION)
    return scaled


def normalise_before_crop(image_cxyz: Image, how: Normalisation, mask: NDArray[np.bool_] | None = None) -> Image:
    """The part of the normalisation that sees the whole volume. `mask` is for z_score_mask; None makes it of these channels.

    Raises:
        MissingDependencyError: see `nonzero_mask`.
    """
    if how == "z_score_nonzero":
        return z_score(image_cxyz)
    if how == "z_score_mask":
        return z_score_within(image_cxyz, nonzero_mask(list(image_cxyz)) if mask is None else mask)
    if how == "z_score_volume":
        return z_score_within(image_cxyz, np.ones(image_cxyz.shape[1:], dtype=np.bool_))
    return min_max(image_cxyz, (1, 2)) if how == "per_slice_precrop" else image_cxyz


def normalise_after_crop(image_cxyz: Image, how: Normalisation) -> Image:
    """The part of the normalisation that sees only what the network sees."""
    return min_max(image_cxyz, (1, 2, 3)) if how == "per_volume_postcrop" else image_cxyz


def turned(case: Case, spec: ModelSpec) -> list[Image]:
    """The case's modalities in the spec's order and orientation: views float32 (x, y, z), raw intensities."""
    return [case.grid.reorient(case.images[modality], spec.orientation) for modality in spec.modalities]


def oriented(case: Case, spec: ModelSpec) -> Image:
    """The same in one array, float32 (channels, x, y, z)."""
    return np.stack(turned(case, spec)).astype(np.float32, copy=False)


def whole_volumes(case: Case, spec: ModelSpec, raw: Sequence[Image] | None = None) -> list[Image]:
    """The case's modalities as they are before anything is cut out of them, float32 (x, y, z); views where nothing is changed.

    In this order: the part of the normalisation that sees the whole volume, histogram matching, resizing. `raw` is the part of the case
    that is seen, as `framed` gives it; all of it unless given.

    Raises:
        MissingDependencyError: see `nonzero_mask`.
    """
    raw = turned(case, spec) if raw is None else raw
    mask, made = nonzero_mask(raw) if spec.normalisation == "z_score_mask" else None, []
    for modality, channel in zip(spec.modalities, raw, strict=True):
        image = normalise_before_crop(channel[None], spec.normalisation, mask)[0]
        if spec.histogram is not None:
            image = match_histogram(image, channel != 0, spec.histogram, modality)
        made.append(image if spec.resize is None else resize_linear(image, spec.resize))
    return made


def head_of(case: Case, spec: ModelSpec, channels: Sequence[Image], raw: Sequence[Image] | None = None) -> NDArray[np.bool_]:
    """The head on the grid of `channels`, which are the `whole_volumes` of the case, or of its part `raw`."""
    if not spec.normalisation.startswith("z_score") and spec.histogram is None:
        return head_mask(channels)
    # Of intensities around their mean, half of the head is not above air.
    mask = head_mask(turned(case, spec) if raw is None else raw)
    return mask if spec.resize is None else resize_nearest(mask, spec.resize)


def onto_network_grid(array: NDArray[ScalarT], case: Case, spec: ModelSpec) -> NDArray[ScalarT]:
    """A label map or mask on the case's grid, turned and resized as its images are."""
    turned_array = case.grid.reorient(array, spec.orientation)
    return turned_array if spec.resize is None else resize_nearest(turned_array, spec.resize)


def off_network_grid(array: NDArray[ScalarT], case: Case, spec: ModelSpec) -> NDArray[ScalarT]:
    """The inverse, but for the turn: a label map in the spec's orientation, on as many voxels as the case has."""
    if spec.resize is None:
        return array
    x, y, z = case.grid.reorient(np.broadcast_to(np.uint8(0), case.grid.shape), spec.orientation).shape
    return resize_nearest(array, (x, y, z))


def crop_input(case: Case, spec: ModelSpec, size: Size | None = None) -> tuple[Image, CropBox]:
    """The centre crop of a case, normalised: float32 (channels, D, H, W) in [0, 1], and where it lies."""
    image = np.stack(whole_volumes(case, spec)).astype(np.float32, copy=False)
    policy = spec.spatial if isinstance(spec.spatial, CentreCrop) else CentreCrop(size=spec.spatial.size)
    box = centre_box(image.shape, size or policy.size)
    cut: Image = box.cut(image).astype(np.float32, copy=False)
    return normalise_after_crop(cut, spec.normalisation), box


def check_spacing(case: Case, spec: ModelSpec) -> None:
    """Refuse a case of another voxel size than the spec's.

    Raises:
        InputError: it is.
    """
    if spec.spacing is None:
        return
    found = case.grid.spacing_in(spec.orientation)
    if any(abs(own - wanted) > SPACING_SLACK * wanted for own, wanted in zip(found, spec.spacing, strict=True)):
        told, wanted = (" x ".join(f"{side:.4g}" for side in sides) for sides in (found, spec.spacing))
        raise InputError(
            f"{case.name} has voxels of {told} mm along {spec.orientation}, {spec.name} was trained on {wanted} mm",
            "resample the case first: nothing here resamples it",
        )


def framed(raw: list[Image], spec: ModelSpec) -> tuple[list[Image], CropBox | None]:
    """The part of the volume that the policy sees, as views, and where it lies."""
    if not isinstance(spec.spatial, SlidingWindow) or spec.spatial.inside == "volume":
        return raw, None
    frame = nonzero_box(raw)
    return [frame.view(channel) for channel in raw], frame
