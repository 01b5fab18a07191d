"""How a bundle is refused: the file, what is wrong with it, and what to do."""

from __future__ import annotations

from typing import Final

from edge_latup.bundle.names import shown
from edge_latup.errors import VerificationError

COPY_AGAIN: Final = "do not install it; copy the whole bundle again from where it was made, and report it if that does not help"


def refused(name: str, what: str, hint: str = COPY_AGAIN) -> VerificationError:
    """The error for the file `name` of a bundle; the name is escaped, as it may be an attacker's."""
    return VerificationError(f"{shown(name)} {what}", hint)


def misplaced(expected: str, found: str, known: set[str], seen: set[str]) -> VerificationError:
    """The error for an archive that holds `found` where `expected` belongs: one of both was added, removed, renamed, moved or repeated."""
    if found in seen:
        return refused(found, "is in the archive twice")
    if found in known:
        return refused(expected, "is missing, or not in its place")
    return refused(found, f"was added or renamed: it is not in the manifest, and stands where {shown(expected)} belongs")
