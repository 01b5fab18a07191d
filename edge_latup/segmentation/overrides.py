"""What a user asks of one run instead of what the artifact's spec declares: policy, windows, views, post-processing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeVar, cast, get_args

from edge_latup.errors import InputError
from edge_latup.spec import Blending, BrainCrop, CentreCrop, ModelSpec, PostProcess, Size, SlidingWindow, Spatial, View

POLICIES: Final[dict[str, type[CentreCrop] | type[BrainCrop] | type[SlidingWindow]]] = {
    "centre-crop": CentreCrop,
    "brain-crop": BrainCrop,
    "sliding-window": SlidingWindow,
}
NameT = TypeVar("NameT", bound=str)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """None leaves what the spec declares. `window` is the size of a sliding window or of a centre crop."""

    policy: str | None = None
    window: Size | None = None
    overlap: float | None = None
    blending: Blending | None = None
    views: tuple[View, ...] | None = None
    min_component: int | None = None
    min_tumour: int | None = None
    min_enhancing: int | None = None
    threshold: float | None = None


def parse_name(text: str, known: tuple[NameT, ...], option: str) -> NameT:
    """One of the names that `option` takes.

    Raises:
        InputError: it is none of them.
    """
    if text not in known:
        raise InputError(f"{option} {text!r} is not known", f"choose one of: {', '.join(known)}")
    return known[known.index(text)]


def parse_views(text: str) -> tuple[View, ...]:
    """Distinct views of a text such as "identity,mirror".

    Raises:
        InputError: a name is unknown or comes twice.
    """
    known = cast(tuple[View, ...], get_args(View))
    views = tuple(parse_name(name.strip(), known, "--tta") for name in text.split(","))
    if len(set(views)) != len(views):
        raise InputError(f"--tta {text!r} names a view twice", f"name each once: --tta {','.join(known)}")
    return views


def overridden(spec: ModelSpec, asked: Overrides) -> ModelSpec:
    """`spec` with what was asked for.

    Raises:
        InputError: a value is out of range, does not suit the network, or does not belong to the policy.
    """
    spatial = _spatial(spec, asked)
    views = asked.views or spec.views
    if "rotate" in views and not isinstance(spatial, BrainCrop) and spatial.size[0] != spatial.size[1]:
        sides = "x".join(str(side) for side in spatial.size)
        raise InputError(f"--tta rotate turns the axial plane, but that of {sides} is not square", "add --window, such as --window 128")
    changes = {"spatial": spatial, "views": views, "post_process": _post_process(spec.post_process, asked)}
    return spec.model_copy(update=changes)


def _spatial(spec: ModelSpec, asked: Overrides) -> Spatial:
    """The policy asked for; what it shares with the declared one is kept, the rest has the policy's defaults."""
    kind = POLICIES[parse_name(asked.policy, tuple(POLICIES), "--policy")] if asked.policy else type(spec.spatial)
    _refuse_foreign(kind, asked)
    if asked.window is not None and any(side % spec.divisor for side in asked.window):
        whole = "x".join(str(-(-side // spec.divisor) * spec.divisor) for side in asked.window)
        sides = "x".join(str(side) for side in asked.window)
        raise InputError(f"--window {sides}: the network takes multiples of {spec.divisor}", f"write for example --window {whole}")
    if asked.overlap is not None and not 0 <= asked.overlap < 1:
        raise InputError(
            f"--overlap {asked.overlap:g} is not a share of the window", "write a number from 0 to below 1, such as --overlap 0.25"
        )
    changes = {"size": asked.window, "overlap": asked.overlap, "blending": asked.blending}
    kept = spec.spatial if isinstance(spec.spatial, kind) else kind(size=spec.spatial.size)
    return kept.model_copy(update={key: value for key, value in changes.items() if value is not None})


def _refuse_foreign(kind: type[CentreCrop] | type[BrainCrop] | type[SlidingWindow], asked: Overrides) -> None:
    """Refuse an option that would silently do nothing."""
    policy = next(name for name, known in POLICIES.items() if known is kind)
    if asked.window is not None and kind is BrainCrop:
        raise InputError(
            "--window does not belong to brain-crop, which is as large as each head", "leave it out, or add --policy sliding-window"
        )
    for option, value in (("--overlap", asked.overlap), ("--blending", asked.blending)):
        if value is not None and kind is not SlidingWindow:
            raise InputError(f"{option} does not belong to {policy}, which has no windows", "leave it out, or add --policy sliding-window")


def _post_process(declared: PostProcess, asked: Overrides) -> PostProcess:
    least = {"component": asked.min_component, "tumour": asked.min_tumour, "enhancing": asked.min_enhancing}
    for name, voxels in least.items():
        if voxels is not None and voxels < 0:
            raise InputError(f"--min-{name} {voxels} is not a number of voxels", "write 0 to keep all")
    if asked.threshold is not None and not (math.isfinite(asked.threshold) and 0 < asked.threshold < 1):
        raise InputError(f"--threshold {asked.threshold:g} is not a probability", "write a number between 0 and 1, such as --threshold 0.5")
    changes = {f"min_{name}_voxels": voxels for name, voxels in least.items()} | {"threshold": asked.threshold}
    return declared.model_copy(update={key: value for key, value in changes.items() if value is not None})
