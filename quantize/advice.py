"""How INT8 of a network that is known by name is best made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge_latup.artifact import Artifact

LATUP_FLOAT: Final = ("encoder1.embedding", "encoder2.conv1", "output")
"""LATUP-Net's first convolution, the one that reads the joined branches, and the last: 6.2 % of the multiplications."""


def int8_options(fp32: Artifact) -> dict[str, Any]:
    """Options of `quantize` for int8: modules left in float.

    A patient's image between its own minimum and maximum has few of 256 levels left for the brain, for one bright voxel stretches the
    range: so LATUP-Net's first convolution reads it as it is. The other two were found by leaving each convolution in float in turn.
    """
    network = fp32.manifest.spec.network
    if network is not None and network.family == "latup-net":
        return {"keep_float": LATUP_FLOAT}
    return {}


def advice(fp32: Artifact, method: str, runtime: str, keep_float: Sequence[str]) -> str | None:
    """What to add to a command that makes int8 in another way than `int8_options`; None where there is nothing to say."""
    wanted = int8_options(fp32)
    if not wanted or method != "int8" or runtime not in ("openvino", "tensorrt"):
        return None
    missing = " ".join(f"--keep-float {name}" for name in wanted["keep_float"] if name not in keep_float)
    return f"`edge-latup demo` makes INT8 of this network with {missing}, which drifts less there" if missing else None
