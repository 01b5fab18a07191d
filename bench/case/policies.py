"""Where the network looks, by name: the rows that a comparison is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from edge_latup.spec import BrainCrop, CentreCrop, ModelSpec, SlidingWindow, Spatial

OwnPolicy = Literal["centre-crop", "brain-crop", "sliding-window", "head-windows"]
"""The policies of our own engine."""

POLICIES: Final[dict[OwnPolicy, Callable[[SlidingWindow], Spatial]]] = {
    "centre-crop": lambda windows: CentreCrop(size=windows.size),
    "brain-crop": lambda windows: BrainCrop(size=windows.size),
    "sliding-window": lambda windows: windows.model_copy(update={"skip_air": False}),
    "head-windows": lambda windows: windows.model_copy(update={"skip_air": True}),
}
"""Each made of the window MONAI slides; `sliding-window` runs exactly MONAI's windows, `head-windows` those of them that hold head."""
ONE_PASS: Final[tuple[OwnPolicy, ...]] = ("centre-crop", "brain-crop")
"""The policies whose PyTorch row is our own: MONAI's row is PyTorch's for windows."""


def with_spatial(spec: ModelSpec, spatial: Spatial) -> ModelSpec:
    """The spec with another spatial policy."""
    return spec.model_copy(update={"spatial": spatial})
