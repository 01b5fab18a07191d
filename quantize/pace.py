"""How far a pass over the calibration inputs is, and about how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

EVERY: Final = 5.0
"""Seconds between two lines."""
Item = TypeVar("Item")
Tell = Callable[[str], None]


def silent(line: str) -> None:
    """Tell nobody."""


def paced(items: Sequence[Item], what: str, tell: Tell, clock: Callable[[], float] = time.monotonic) -> Iterator[Item]:
    """The items one by one; in between, at most one line in `EVERY` seconds, with the time that the rest takes at the mean pace so far."""
    began = told = clock()
    for done, item in enumerate(items):
        now = clock()
        if done and now - told >= EVERY:
            told, left = now, (now - began) / done * (len(items) - done)
            tell(f"{what}: {done} of {len(items)} inputs, about {left:.0f} s left")
        yield item
