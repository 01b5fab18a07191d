"""What a session on another host is told and asks for, and how a job there is followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_latup.records import Record


class Probe(Record):
    """What a host told before anything was brought there."""

    python: str
    executable: str
    machine: str
    cores: int
    free_disk: int
    free_memory: int | None
    cache: str
    modules: dict[str, str | None]
    """Version by import name; None for what that Python does not find."""


@dataclass(frozen=True, kw_only=True)
class RemoteJob:
    """A process to be started there, in the work folder.

    environment: added to the user's own there; None takes a variable away. beside: a sampler, started before it and ended after it.
    folders: made first, in the work folder.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str | None]
    beside: tuple[str, ...] | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended; stderr: its last lines."""

    code: int
    stderr: str


class Watcher:
    """Takes the pieces that `follow` prints, and remembers how far it came."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.ended: Ended | None = None
        self._on_line, self._rest, self._offset = on_line, b"", 0

    def begin(self) -> int:
        """Where to go on; half a line of a lost connection is forgotten."""
        self._rest = b""
        return self._offset

    def take(self, piece: bytes) -> None:
        """Whole lines are passed on; what follows the last is kept for the next piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "line" in told:
                self._offset = told["offset"]
                self._on_line(told["line"])
            else:
                self.ended = Ended(code=told["code"], stderr=told["stderr"])
