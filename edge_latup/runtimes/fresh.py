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
        raise _failure(who, done.returncode, [line for line in done.stderr.splitlines() if line.strip()])


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


def _failure(who: str, code: int, lines: list[str]) -> EdgeLatupError:
    try:
        told = json.loads(lines[-1])
        return KINDS.get(code, EdgeLatupError)(f"{who}: {told['message']}", told["hint"])
    except (IndexError, ValueError, KeyError, TypeError):
        ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = "the machine may have run out of memory: close other programs" if code == -signal.SIGKILL else "\n".join(lines[-20:])
        return EdgeLatupError(f"the process for {who} {ending}", hint)
