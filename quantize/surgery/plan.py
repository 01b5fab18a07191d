"""Which passes are kept for an artifact on a runtime, and why the others are not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError
from edge_latup.manifest import RuntimeName
from edge_latup.quantize.surgery.measure import Comparison, Effort, compare_models
from edge_latup.quantize.surgery.passes import PASSES, TOLERANCE, choose_passes, refuse_stale_batch_norm, rewrite
from edge_latup.records import Record
from edge_latup.segmentation.parity import check


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What to try.

    passes: names; none for those that never add work. effort: how much to measure each; None keeps every pass that finds a place.
    trust_batch_norm: moving statistics of 0 and 1 are meant. tell: gets a line after each step.
    """

    passes: tuple[str, ...] = ()
    effort: Effort | None = None
    trust_batch_norm: bool = False
    tell: Callable[[str], None] = lambda _: None


class PassOutcome(Record):
    """What became of one pass, for the manifest."""

    name: str
    places: int
    """Where it changed the graph that the passes before it had left."""
    kept: bool
    why: str
    ratio: float | None = None
    """Time after by time before, median of `n` pairs on the runtime; None where nothing was measured."""
    noise: float | None = None
    n: int = 0
    measured: Comparison | None = None


def plan_rewrite(artifact: Artifact, runtime: RuntimeName, rewriting: Rewriting) -> dict[str, Any]:
    """Parameters of a rewrite: the passes to apply, in order, and what became of each that was tried.

    Each pass is tried on what the kept ones before it left, and kept where the output is equal within `TOLERANCE` and the model is
    not slower beyond the noise; a pass that may add work, where the model is faster beyond it.

    Raises:
        ArtifactError: no pass is kept, or the moving statistics of the batch norms were never updated.
        InputError: there is no such pass.
    """
    passes = choose_passes(rewriting.passes)
    if not rewriting.trust_batch_norm:
        refuse_stale_batch_norm(artifact.model_path, passes)
    outcomes: list[PassOutcome] = []
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        current = artifact
        for name in passes:
            trial = Artifact(folder=Path(folder) / name, manifest=artifact.manifest)
            outcome = _tried(name, current, trial, runtime, rewriting)
            rewriting.tell(f"{name}: {'kept' if outcome.kept else 'not kept'}, {outcome.why}")
            outcomes.append(outcome)
            current = trial if outcome.kept else current
    _refuse_nothing(artifact, runtime, outcomes)
    return {
        "passes": [outcome.name for outcome in outcomes if outcome.kept],
        "outcomes": [outcome.model_dump(mode="json") for outcome in outcomes],
        "trust_batch_norm": rewriting.trust_batch_norm,
    }


def _tried(name: str, current: Artifact, trial: Artifact, runtime: RuntimeName, rewriting: Rewriting) -> PassOutcome:
    trial.folder.mkdir()
    places = rewrite(current.model_path, trial.model_path, [name])[name]
    if not places:
        return PassOutcome(name=name, places=0, kept=False, why="there is nothing to change")
    if rewriting.effort is None:
        return PassOutcome(name=name, places=places, kept=True, why="not measured")
    try:
        measured = compare_models(current, trial, runtime, rewriting.effort, lambda line: rewriting.tell(f"{name}: {line}"))
    except InputError as error:  # the runtime refuses the rewritten graph, or it gives NaN
        return PassOutcome(name=name, places=places, kept=False, why=error.message)
    return _judged(name, places, measured)


def _judged(name: str, places: int, measured: Comparison) -> PassOutcome:
    broken = check(measured.difference, TOLERANCE)
    why = f"not equal: {', '.join(broken)}" if broken else measured.in_words()
    pays = not measured.slower if PASSES[name].by_default else measured.faster
    return PassOutcome(
        name=name, places=places, kept=pays and not broken, why=why, ratio=measured.ratio, noise=measured.noise,
        n=len(measured.ratios), measured=measured,
    )  # fmt: skip


def _refuse_nothing(artifact: Artifact, runtime: RuntimeName, outcomes: list[PassOutcome]) -> None:
    if any(outcome.kept for outcome in outcomes):
        return
    if not any(outcome.places for outcome in outcomes):
        tried = ", ".join(outcome.name for outcome in outcomes)
        raise ArtifactError(f"{artifact.model_path} holds nothing that can be rewritten by {tried}", "use it as it is")
    dropped = "; ".join(f"{outcome.name}: {outcome.why}" for outcome in outcomes if outcome.places)
    raise ArtifactError(f"no rewrite of {artifact.model_path} is worth keeping on {runtime}: {dropped}", "use it as it is")
