"""How INT8 of a network that is known by name is best made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge_latup.artifact import Artifact
from edge_latup.quantize.estimators import MIN_MAX, slug

LATUP_HEAD: Final = "output"
"""LATUP-Net's last convolution, which makes the class scores: 0.03 % of the multiplications."""


def int8_options(fp32: Artifact) -> dict[str, Any]:
    """Options of `quantize` for int8: modules left in float, and how ranges are found.

    LATUP-Net is calibrated on phantoms and used on patients, whose activations reach further than the phantoms' mean extremes: its ranges
    are the widest seen.
    """
    network = fp32.manifest.spec.network
    if network is not None and network.family == "latup-net":
        return {"keep_float": (LATUP_HEAD,), "estimator": MIN_MAX}
    return {}


def advice(fp32: Artifact, method: str, runtime: str, keep_float: Sequence[str], estimator: str | None) -> str | None:
    """What to add to a command that makes int8 in another way than `int8_options`; None where there is nothing to say."""
    wanted = int8_options(fp32)
    if not wanted or method != "int8" or runtime not in ("openvino", "tensorrt"):
        return None
    missing = [f"--keep-float {name}" for name in wanted["keep_float"] if name not in keep_float]
    missing += [] if estimator == wanted["estimator"] else [f"--ranges {slug(wanted['estimator'])}"]
    return f"`edge-latup demo` makes INT8 of this network with {' '.join(missing)}, which drifts less there" if missing else None
