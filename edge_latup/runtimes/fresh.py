"""A piece of work in a process of its own: engines that share one disturb each other's thread pools, and so their timing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from edge_latup.errors import EdgeLatupError, InputError, MissingDependencyError

START: Final = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {module} import main; sys.exit(main(sys.argv[1:]))"
"""With the path of this process, which in an installed bundle is not the interpreter's own. The empty entry is left out: it is the
working directory, where a folder may shadow the installed package (-P is Python 3.11+)."""
LAST_LINES: Final = 20
KINDS: Final = {kind.exit_code: kind for kind in (EdgeLatupError, InputError, MissingDependencyError)}


def run_fresh(module: str, arguments: Sequence[str], who: str) -> None:
    """Call `main(arguments)` of a module in a fresh interpreter and wait for it; `who` names the work in errors.

    Raises:
        EdgeLatupError: it failed; with its own message (`tell_failure`), or its last words where it crashed.
    """
    done = subprocess.run(
        [sys.executable, *_flags(), "-c", START.format(module=module), json.dumps([place for place in sys.path if place]), *arguments],
        check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise failure(who, done.returncode, done.stderr)


def _flags() -> list[str]:
    """As this interpreter was started: an installed bundle's sees no other packages and no variable of the environment."""
    return [flag for flag, on in (("-I", sys.flags.isolated), ("-S", sys.flags.no_site)) if on]


def tell_failure(work: Callable[[], None]) -> int:
    """Do the work of such a process; an error of ours goes to stderr as one line of JSON. Returns the exit code."""
    try:
        work()
    except EdgeLatupError as error:
        sys.stderr.write("\n" + json.dumps({"message": error.message, "hint": error.hint}) + "\n")
        return error.exit_code
    return 0


def failure(who: str, code: int, stderr: str) -> EdgeLatupError:
    """The error of a process that ended with `code`: its own, which is the last line it wrote (`tell_failure`), or that of its crash."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    try:
        told = json.loads(lines[-1])
        return KINDS.get(code, EdgeLatupError)(f"{who}: {told['message']}", told["hint"])
    except (IndexError, ValueError, KeyError, TypeError):
        return _crash(who, code, lines)


def _crash(who: str, code: int, lines: list[str]) -> EdgeLatupError:
    """The error for a process that ended without telling why: by a signal, or with a traceback as its last lines."""
    if code == -signal.SIGKILL:
        return EdgeLatupError(f"the process for {who} was killed (SIGKILL): the machine may have run out of memory", "close other programs")
    ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if not lines:
        return EdgeLatupError(f"the process for {who} {ending} and said nothing")
    return EdgeLatupError(f"the process for {who} {ending}: {lines[-1]}", "\n".join(["its last lines were:", *lines[-LAST_LINES:]]))
