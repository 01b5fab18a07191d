"""Whether an exact rewrite still pays in the final precision: the same method with and without it, and the faster one kept."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_latup.artifact import Artifact, refuse_existing, write_artifact
from edge_latup.errors import ArtifactError
from edge_latup.manifest import MODEL_FILES, RuntimeName
from edge_latup.quantize.methods import choose, quantize
from edge_latup.quantize.surgery.measure import Comparison, Effort, compare_models
from edge_latup.quantize.surgery.plan import Rewriting
from edge_latup.records import Record


class RewriteChoice(Record):
    """Why an artifact was or was not made from the rewritten graph; in the parameters of its last step, as "rewrite"."""

    kept: bool
    why: str
    measured: Comparison | None = None
    """The artifact without the rewrite (before) and with it (after), both in their final precision."""


def quantize_fastest(
    artifact: Artifact, method: str, out: Path, *, runtime: RuntimeName, rewriting: Rewriting | None = None, overwrite: bool = False,
    **options: Any,
) -> Artifact:  # fmt: skip
    """Compress an artifact as it is and rewritten, time both on the runtime, and keep the rewritten one unless it is slower.

    A rewrite that is faster in FP32 may be slower in INT8, so nothing is measured before the end. `options` are those of `quantize`.

    Raises:
        EdgeLatupError: as `quantize`; what cannot be rewritten is compressed as it is.
    """
    choose("rewrite", runtime)
    refuse_existing(out, overwrite)
    rewriting = rewriting or Rewriting()
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as name:
        folder = Path(name)
        plain = quantize(artifact, method, folder / "plain" / out.name, runtime=runtime, **options)
        try:
            unmeasured = replace(rewriting, effort=None)
            rewritten = quantize(artifact, "rewrite", folder / "rewritten", runtime=runtime, rewriting=unmeasured)
        except ArtifactError as error:
            return put(plain, _told(RewriteChoice(kept=False, why=error.message)), out, overwrite)
        other = quantize(rewritten, method, folder / "other" / out.name, runtime=runtime, **options)
        measured = compare_models(plain, other, runtime, rewriting.effort or Effort(), rewriting.tell)
        choice = RewriteChoice(kept=not measured.slower, why=measured.in_words(), measured=measured)
        rewriting.tell(f"rewritten graph {'kept' if choice.kept else 'not kept'}: {choice.why}")
        return put(other if choice.kept else plain, _told(choice), out, overwrite)


def _told(choice: RewriteChoice) -> dict[str, Any]:
    return {"rewrite": choice.model_dump(mode="json")}


def put(made: Artifact, told: dict[str, Any], out: Path, overwrite: bool) -> Artifact:
    """Copy an artifact to its place, with more parameters in its last step."""

    def copy(folder: Path) -> None:
        for name in MODEL_FILES[made.manifest.format]:
            shutil.copyfile(made.folder / name, folder / name)

    *before, last = made.manifest.recipe
    step = last.model_copy(update={"parameters": last.parameters | told})
    return write_artifact(out, made.manifest.model_copy(update={"recipe": (*before, step)}), copy, overwrite=overwrite)
