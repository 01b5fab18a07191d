"""Whether something else used the processors while a row was timed."""

from __future__ import annotations

from typing import Final, Protocol

SHARE: Final = 0.1
"""Of the threads: so many processors busy with something else move a median by about as much."""


class Timed(Protocol):
    """What every timed row keeps of the machine's load."""

    @property
    def threads(self) -> int:
        """It was timed with."""

    @property
    def load_average(self) -> float:
        """Of the minute before; -1 where the system does not tell."""

    @property
    def other_busy(self) -> float | None:
        """Mean number of processors busy with something else meanwhile; None where it is not known."""


def disturbance(row: Timed) -> str | None:
    """What disturbed the timing; None where nothing is known to have.

    The load average stands in where nothing better was kept: it counts the work that this tool did itself in the minute before.
    """
    if row.other_busy is not None:
        if row.other_busy <= SHARE * row.threads:
            return None
        return f"something else kept {row.other_busy:.1f} processors busy while it was timed ({row.threads} threads)"
    if row.load_average <= row.threads:
        return None
    return f"the machine was busy when timing began (load average {row.load_average:.1f}, {row.threads} threads)"
