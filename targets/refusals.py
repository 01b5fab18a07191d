"""Asking a target for what it cannot do: an error with the reason and the next best option, before anything is built or copied."""

from __future__ import annotations

from edge_latup.errors import InputError
from edge_latup.manifest import Precision
from edge_latup.targets.profile import Profile, TensorRtGeneration


def require(profile: Profile, what: str) -> None:
    """Refuse what the profile refuses, by its key: "dla", "fp8", "tensorrt-11".

    Raises:
        InputError: the target cannot do it; the message has the reason, the hint what to do instead.
    """
    refusal = profile.refused.get(what)
    if refusal is not None:
        raise InputError(f"{profile.name} refuses {what}: {refusal.reason}", refusal.instead)


def require_precision(profile: Profile, precision: Precision) -> None:
    """Refuse a precision that the target does not compute in.

    Raises:
        InputError: with the precisions it does compute in where the profile gives no reason.
    """
    require(profile, precision)
    if precision not in profile.gmacs:
        raise InputError(f"{profile.name} states no rate in {precision}", f"it computes in {', '.join(profile.gmacs)}")


def require_opset(profile: Profile, generation: TensorRtGeneration, opset: int) -> None:
    """Refuse an ONNX file that the parser of one TensorRT generation of the target does not read.

    Raises:
        InputError: the hint is the profile's own, or names the systems whose parser reads it.
    """
    if generation.newest_opset is None or opset <= generation.newest_opset:
        return
    message = f"the ONNX parser of TensorRT {generation.tensorrt} ({generation.system}) reads up to opset {generation.newest_opset}"
    raise InputError(f"{message}, and this file has opset {opset}", _instead(profile, opset))


def _instead(profile: Profile, opset: int) -> str:
    """Newer systems of the same target first; where it has none, what its profile says of opsets."""
    newer = [item.system for item in profile.tensorrt if item.newest_opset is None or item.newest_opset >= opset]
    if newer:
        return f"use {' or '.join(newer)} on {profile.name}"
    told = [refusal.instead for key, refusal in profile.refused.items() if key.startswith("opset-")]
    return told[0] if told else "bring the file to an older opset, or use another target"
