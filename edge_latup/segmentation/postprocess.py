"""After the network: small components out, and tumours too small to be believed."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import MissingDependencyError, install_hint
from edge_latup.spec import REGIONS, PostProcess

Labels = NDArray[np.uint8]
NECROTIC: Final = 1
(ENHANCING,) = REGIONS["ET"]


def post_process(label: Labels, rule: PostProcess) -> Labels:
    """A label map (x, y, z) by every rule of `rule`: components of a class, then whole tumours, then little enhancing tumour.

    Only the box that holds tumour is looked at, which costs little time and memory.

    Raises:
        MissingDependencyError: connected-components-3d is not installed.
    """
    if not (rule.min_component_voxels or rule.min_tumour_voxels or rule.min_enhancing_voxels) or not label.any():
        return label
    box = _tumour_box(label)
    kept = remove_small_tumours(remove_small_components(label[box], rule), rule)
    result = label.copy()
    result[box] = without_little_enhancing(kept, rule)
    return result


def remove_small_components(label: Labels, rule: PostProcess) -> Labels:
    """A label map (x, y, z) without the components of one class that have fewer than `rule.min_component_voxels` voxels.

    Components are those of the class itself (Attention-ResNetUNet's protocol removes them per class, not per region).

    Raises:
        MissingDependencyError: connected-components-3d is not installed.
    """
    # Labelled as a multi-class image, neighbours of different classes belong to different components.
    return _without_small(label, label, rule.min_component_voxels, rule.connectivity)


def remove_small_tumours(label: Labels, rule: PostProcess) -> Labels:
    """A label map (x, y, z) without the tumours, of all classes together, that have fewer than `rule.min_tumour_voxels` voxels.

    Raises:
        MissingDependencyError: connected-components-3d is not installed.
    """
    return _without_small(label, (label > 0).astype(np.uint8), rule.min_tumour_voxels, rule.connectivity)


def without_little_enhancing(label: Labels, rule: PostProcess) -> Labels:
    """A label map whose enhancing tumour, where it has fewer than `rule.min_enhancing_voxels` voxels in all, is necrotic core instead.

    A few voxels of it where there is none cost all of that region's Dice. Source: F. Isensee et al., "nnU-Net for Brain Tumor
    Segmentation", arXiv 2011.00848.
    """
    enhancing = label == ENHANCING
    if not 0 < np.count_nonzero(enhancing) < rule.min_enhancing_voxels:
        return label
    return np.where(enhancing, np.uint8(NECROTIC), label)


def _without_small(label: Labels, image: Labels, least: int, connectivity: Literal[6, 18, 26]) -> Labels:
    if not least:
        return label
    try:
        import cc3d
    except ImportError:
        raise MissingDependencyError("removing small components needs connected-components-3d", install_hint("core")) from None
    components = cc3d.connected_components(image, connectivity=connectivity)
    small = np.bincount(components.ravel()) < least
    small[0] = False
    return np.where(small[components], np.uint8(0), label)


def _tumour_box(label: Labels) -> tuple[slice, ...]:
    """The box of all voxels that are not background, of which there is one."""
    axes = range(label.ndim)
    held = [np.flatnonzero(label.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in held)
