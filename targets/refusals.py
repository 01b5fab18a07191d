"""Asking a target for what it cannot do: an error with the reason and the next best option, before anything is built or copied."""

from __future__ import annotations

from edge_latup.errors import InputError
from edge_latup.manifest import Precision
from edge_latup.targets.profile import Profile


def require(profile: Profile, what: str) -> None:
    """Refuse what the profile refuses, by its key: "dla", "fp8", "tensorrt-11".

    Raises:
        InputError: the target cannot do it; the message has the reason, the hint what to do instead.
    """
    refusal = profile.refused.get(what)
    if refusal is not None:
        raise InputError(f"{profile.name} refuses {what}: {refusal.reason}", f"instead: {refusal.instead}")


def require_precision(profile: Profile, precision: Precision) -> None:
    """Refuse a precision that the target does not compute in.

    Raises:
        InputError: with the precisions it does compute in where the profile gives no reason.
    """
    require(profile, precision)
    if precision not in profile.gmacs:
        raise InputError(f"{profile.name} states no rate in {precision}", f"it computes in {', '.join(profile.gmacs)}")
