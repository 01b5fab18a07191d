"""One tree of errors. Each says what is wrong and what to do next, and carries the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar


class EdgeLatupError(Exception):
    """Base of all errors this package raises on purpose.

    Args:
        message: what is wrong, with the offending value and file.
        hint: what to do next; the exact command where there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def install_hint(extra: str) -> str:
    """The command that installs an extra: from the source and with the pinned versions, since the package is on no index."""
    return f"in edge-latup's folder: pip install -c constraints.txt '.[{extra}]'"


class InputError(EdgeLatupError):
    """Bad usage or bad input."""

    exit_code = 2


class CaseError(InputError):
    """A case that cannot be used: missing, ambiguous, damaged or inconsistent files."""


class SpecError(InputError):
    """A model spec, manifest, record or checkpoint that does not say what it must."""


class ArtifactError(InputError):
    """An artifact folder that is missing, incomplete, altered or of the wrong kind for what was asked."""


class MissingDependencyError(EdgeLatupError):
    """An optional package or a device that this operation needs is not here."""

    exit_code = 3


class GateRefusedError(EdgeLatupError):
    """A candidate that drifts from its reference by more than was agreed beforehand."""

    exit_code = 4


class VerificationError(EdgeLatupError):
    """A bundle that is not what was signed."""

    exit_code = 5


class RemoteError(MissingDependencyError):
    """A host that cannot be reached, is not trusted, was lost, or lacks what a run there needs."""
