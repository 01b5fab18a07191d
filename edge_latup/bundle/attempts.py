"""Native code that crashes takes the process with it: what is about to be tried is noted first, so that it is not tried for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from edge_latup.bundle.fingerprint import Fingerprint, fingerprint
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.manifest import Sha256
from edge_latup.records import Record, read_record, write_record

NAME: Final = "tensorrt-attempts.json"
"""In the cache of an installation; install.py knows it too."""
MOST: Final = 2
"""One may have been a power cut, or an operator who did not want to wait for an engine."""


class Attempts(Record):
    """How often this process began to use TensorRT and never came back, on the machine as it was."""

    schema_version: Literal[1] = 1
    artifact: Sha256
    fingerprint: Fingerprint
    begun: int = Field(ge=1)


@contextmanager
def attempt(cache: Path | None, artifact: str) -> Iterator[None]:
    """Use TensorRT inside; any end of that but the end of the process is taken off the count again.

    Args:
        cache: of the installation; without one nothing is counted.
        artifact: its digest. Another one, another driver or another TensorRT starts from nothing.

    Raises:
        ArtifactError: `MOST` of them ended the process.
    """
    if cache is None:
        yield
        return
    path, now = cache / NAME, fingerprint()
    begun = _begun(path, artifact, now)
    if begun >= MOST:
        raise ArtifactError(
            f"TensorRT ended this program {begun} times (it crashed, or was stopped)",
            f"mend or update the GPU's driver or TensorRT; to try once more as things are, delete {path}",
        )
    with suppress(OSError):  # whoever may not write here may still ask, and what must be written says so itself
        write_record(Attempts(artifact=artifact, fingerprint=now, begun=begun + 1), path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _begun(path: Path, artifact: str, now: Fingerprint) -> int:
    try:
        found = read_record(Attempts, path)
    except SpecError:  # there is none, or it was cut off: it begins again
        return 0
    return found.begun if found.artifact == artifact and not found.fingerprint.changes(now) else 0
