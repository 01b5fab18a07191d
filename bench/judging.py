"""What verdict and gate share: margins, and how they name cases."""

from __future__ import annotations

from typing import Final

from edge_latup.cases.identity import CaseOrigin

MARGIN: Final = 0.005
"""Largest mean Dice drop of a region that is accepted, on the cases of any origin."""
POOR: Final = 0.5
"""A reference whose mean Dice of a region is lower is no yardstick for small drops."""
ROUNDING: Final = 1e-9
CASE_NOUNS: Final[dict[CaseOrigin, tuple[str, str]]] = {
    "phantom": ("labelled phantom", "labelled phantoms"),
    "real": ("labelled real case", "labelled real cases"),
    "real, pseudo-label": ("real case with a pseudo-label", "real cases with a pseudo-label"),
}


def count(number: int, names: tuple[str, str]) -> str:
    """A number and its noun."""
    return f"{number} {names[0] if number == 1 else names[1]}"
