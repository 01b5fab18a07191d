"""What the gate said of the models in a bundle, for its papers: read from what `edge-latup --json gate` printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError

REMEDY: Final = "edge-latup --json gate RUN > gate.json"
OTHER_SPEC: Final = "the gate judged these weights under another model spec, not as they are here"
NOT_JUDGED: Final = "no decision of the gate was given"


class Decision(BaseModel):
    """What papers tell of one decision; the gate prints more of it, which is kept as it was printed."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    candidate: str
    candidate_sha256: str
    candidate_spec_sha256: str | None = None
    accepted: bool
    tested: bool
    reasons: list[str]

    @property
    def told(self) -> str:
        """The decision in words."""
        if not self.accepted:
            return "the gate refused it: " + "; ".join(self.reasons)
        return "the gate accepted it" + ("" if self.tested else ", on too few cases for a test")


class _Printed(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    decisions: list[Decision]


@dataclass(frozen=True, kw_only=True)
class GateFile:
    """`printed`: all of the file, or None where none was given; `decisions` by SHA-256 of the candidate."""

    printed: dict[str, Any] | None
    decisions: dict[str, Decision]

    def of(self, artifact: Artifact) -> str | None:
        """What is told of an artifact; None of FP32, which is what candidates are held against, unless it was a candidate itself."""
        if decision := self.decisions.get(artifact.digest):
            return OTHER_SPEC if _of_another_spec(decision, artifact) else decision.told
        return None if artifact.manifest.precision == "fp32" else NOT_JUDGED

    def warnings(self, artifacts: Sequence[Artifact]) -> list[str]:
        """What whoever makes the bundle should hear before it is handed over."""
        told = [(one, self.of(one)) for one in artifacts if not self._accepts(one)]
        return [f"{artifact.folder.name}: {words}; MODEL-CARD.md says so" for artifact, words in told if words is not None]

    def _accepts(self, artifact: Artifact) -> bool:
        decision = self.decisions.get(artifact.digest)
        return decision is not None and decision.accepted and not _of_another_spec(decision, artifact)


def _of_another_spec(decision: Decision, artifact: Artifact) -> bool:
    return decision.candidate_spec_sha256 not in (None, artifact.manifest.spec.digest)


def read_gate(path: Path | None, artifacts: Sequence[Artifact]) -> GateFile:
    """The gate's decisions on the artifacts of a bundle.

    Raises:
        InputError: the file is missing, is not what the gate prints, or names none of the artifacts.
    """
    if path is None:
        return GateFile(printed=None, decisions={})
    try:
        printed = json.loads(path.read_text(encoding="utf-8"))
        decisions = {decision.candidate_sha256: decision for decision in _Printed.model_validate(printed).decisions}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", REMEDY) from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(f"{path} is not what `edge-latup --json gate` prints: {where or 'the whole'} is amiss", REMEDY) from error
    except ValueError as error:
        raise InputError(f"{path} is not what `edge-latup --json gate` prints: {error}", REMEDY) from error
    if not decisions.keys() & {artifact.digest for artifact in artifacts}:
        named = ", ".join(decision.candidate for decision in decisions.values()) or "nothing"
        raise InputError(
            f"{path} judged {named}, none of which is an artifact of this bundle", "gate the bench run in which these very artifacts ran"
        )
    return GateFile(printed=printed, decisions=decisions)
