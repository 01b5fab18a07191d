"""How INT8 of a network that is known by name is best made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge_latup.artifact import Artifact
from edge_latup.quantize.estimators import MSE, slug

LATUP_FLOAT: Final = ("encoder1.embedding", "output")
"""LATUP-Net's first convolution and its last: 0.7 % of the multiplications."""


def int8_options(fp32: Artifact) -> dict[str, Any]:
    """Options of `quantize` for int8: modules left in float, and how ranges are found.

    A patient's image between its own minimum and maximum has few of 256 levels left for the brain, for one bright voxel stretches the
    range: so LATUP-Net's first convolution reads it as it is. The last was found by leaving each convolution in float in turn. What
    the second level reads, of the joined branches, has long tails: ranges by least squared error clip them.
    """
    network = fp32.manifest.spec.network
    if network is not None and network.family == "latup-net":
        return {"keep_float": LATUP_FLOAT, "estimator": MSE}
    return {}


def advice(fp32: Artifact, method: str, runtime: str, keep_float: Sequence[str], estimator: str | None = None) -> str | None:
    """What to add to a command that makes int8 in another way than `int8_options`; None where there is nothing to say."""
    wanted = int8_options(fp32)
    if not wanted or method != "int8" or runtime not in ("openvino", "tensorrt"):
        return None
    ranges = [f"--ranges {slug(wanted['estimator'])}"] if estimator is None else []  # one that was named is a choice
    missing = " ".join([*(f"--keep-float {name}" for name in wanted["keep_float"] if name not in keep_float), *ranges])
    return f"`edge-latup demo` makes INT8 of this network with {missing}, which drifts less there" if missing else None
