"""The executed-kernel audit of a session in use, and of an artifact by itself, profiled on a crop of a phantom where asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError
from edge_latup.manifest import AuditSummary, RuntimeName
from edge_latup.runtimes import open_session
from edge_latup.runtimes.audit import Audit
from edge_latup.runtimes.base import Session, SessionOptions
from edge_latup.segmentation.parity import parity_input

RUNS: Final = 4
"""Inferences that are profiled, the first among them: runtimes average over all."""


def audit_summary(session: Session) -> AuditSummary | None:
    """The audit of a session in short; None where the file's shapes cannot be inferred, so that shares of MACs do not exist."""
    try:
        return session.audit().summary
    except ArtifactError:
        return None


def audit_artifact(
    artifact: Artifact, runtime: RuntimeName | None, *, threads: int = 0, profile: bool = False, progress: Callable[[str], None],
    runtime_options: Mapping[str, str] | None = None,
) -> Audit:  # fmt: skip
    """Open `artifact` on a runtime (default: its first) and read back what executes each layer.

    Args:
        artifact: any artifact that a runtime here opens.
        runtime: the runtime's name.
        threads: CPU threads, 0 for all this process may use.
        profile: run it `RUNS` times and share out the time.
        progress: told what takes long.
        runtime_options: see `SessionOptions`.

    Raises:
        EdgeLatupError: the runtime's own refusal, or shapes that cannot be inferred.
    """
    spec = artifact.manifest.spec
    options = SessionOptions(threads=threads, profile=profile, runtime_options=runtime_options or {})
    with open_session(artifact, runtime, options) as session:
        if profile:
            batch = parity_input(spec, spec.spatial.size)
            progress(f"profiling {RUNS} inferences")
            for _ in range(RUNS):
                session.infer(batch)
        return session.audit()
