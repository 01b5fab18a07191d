"""After the network: small components out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import MissingDependencyError, install_hint
from edge_latup.spec import PostProcess


def remove_small_components(label: NDArray[np.uint8], rule: PostProcess) -> NDArray[np.uint8]:
    """A label map (x, y, z) without the components of one class that have fewer than `rule.min_component_voxels` voxels.

    Components are those of the class itself (Attention-ResNetUNet's protocol removes them per class, not per region).

    Raises:
        MissingDependencyError: connected-components-3d is not installed.
    """
    if not rule.min_component_voxels:
        return label
    try:
        import cc3d
    except ImportError:
        raise MissingDependencyError("removing small components needs connected-components-3d", install_hint("core")) from None
    # Labelled as a multi-class image, neighbours of different classes belong to different components.
    components = cc3d.connected_components(label, connectivity=rule.connectivity)
    sizes = np.bincount(components.ravel())
    small = sizes < rule.min_component_voxels
    small[0] = False
    return np.where(small[components], np.uint8(0), label)
