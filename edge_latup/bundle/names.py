"""Names that mean the same file on every system a bundle is carried to; all others are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_PATH: Final = 200
"""Characters, all ASCII, so bytes too. Windows allows 260 for the whole path, the folder's own included."""
FORBIDDEN: Final = frozenset('<>:"/\\|?*')
"""What Windows allows in no name; ":" also opens an alternate data stream, "\\" is its separator."""
DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))]
)
"""Windows opens a device for these, whatever ending follows."""


def shown(name: str) -> str:
    """A name as it may be printed: what is not printable ASCII is escaped, so that it can neither hide nor steer a terminal."""
    return ascii(name)[1:-1] if len(name) <= 2 * MAX_PATH else f"{ascii(name[:MAX_PATH])[1:-1]}..."


def fault_of(path: str) -> str:
    """What is wrong with a POSIX path inside a bundle; empty where nothing is.

    ASCII only: what Unicode calls the same name (NFC, NFD, full-width forms) differs between file systems, and so cannot collide here.
    """
    if not path:
        return "is empty"
    if len(path) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters"
    if not path.isascii() or not path.isprintable():
        return "holds a character that is not printable ASCII"
    if path.startswith("/"):
        return "is absolute"
    return next((fault for part in path.split("/") if (fault := _fault_of_part(part))), "")


def _fault_of_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "has an empty, '.' or '..' part"
    if bad := sorted(FORBIDDEN.intersection(part)):
        return f"holds {bad[0]!r}, which Windows allows in no name"
    if part[0] == " " or part[-1] in " .":
        return "has a part that starts with a space, or ends with a space or dot, which Windows drops"
    if part.split(".")[0].rstrip(" ").lower() in DEVICES:
        return "has a part that Windows takes for a device"
    return ""


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder that the paths lie in, the top one not counted."""
    return {path[:index] for path in paths for index, letter in enumerate(path) if letter == "/"}


def collision_in(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two of the paths, or of their folders, that some system takes for one: the same twice, in another case, or file and folder."""
    files, seen = list(paths), dict[str, str]()
    for path in sorted(folders_of(files)) + files:
        if (folded := path.lower()) in seen:
            return seen[folded], path
        seen[folded] = path
    return None
