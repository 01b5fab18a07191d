"""Label conventions: what each data set's numbers mean, as canonical 1 necrotic core, 2 oedema, 3 enhancing tumour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import CaseError

Convention = Literal["brats-2023", "brats-2021", "brats-2013", "msd"]

TO_CANONICAL: Final[dict[Convention, dict[int, int]]] = {
    "brats-2023": {0: 0, 1: 1, 2: 2, 3: 3},
    "brats-2021": {0: 0, 1: 1, 2: 2, 4: 3},
    # BRATS 2012-2015 tell necrosis (1) from non-enhancing core (3); both are the non-enhancing core of later years.
    "brats-2013": {0: 0, 1: 1, 2: 2, 3: 1, 4: 3},
    # The Medical Segmentation Decathlon numbers oedema 1 and non-enhancing core 2.
    "msd": {0: 0, 1: 2, 2: 1, 3: 3},
}
FROM_CANONICAL: Final[dict[Convention, tuple[int, int, int, int]]] = {
    "brats-2023": (0, 1, 2, 3),
    "brats-2021": (0, 1, 2, 4),
    "brats-2013": (0, 1, 2, 4),  # 3 is never written: what was 3 is part of canonical 1, and comes back as 1
    "msd": (0, 2, 1, 3),
}
USUAL: Final = range(5)
"""Values of the conventions above."""

CAVITY: Final = (
    "4 is the resection cavity of BraTS 2024, which is not supported: remove the file to treat the case as unlabelled; where 4 is enhancing"
    " tumour, name the files as BraTS 2021 does (_flair, _t1ce, _t1, _t2, _seg)"
)


def convention_of(values: set[int], named: Convention) -> Convention:
    """The convention a label file is written in: what its naming says, corrected by the values it holds.

    A 3 is enhancing tumour in later years, but non-enhancing core in a file named as BRATS 2013 names them, with a 4 in it or without.
    A 4 is enhancing tumour, but in files named as since 2023 it may be the resection cavity of BraTS 2024: `to_canonical` refuses it there.
    """
    if named in ("msd", "brats-2013") or (named == "brats-2023" and 4 in values):
        return named
    if 4 in values:
        return "brats-2013" if 3 in values else "brats-2021"
    return "brats-2023" if 3 in values else named


def distinct_values(label: NDArray[np.generic]) -> list[float]:
    """The values that occur, sorted; those of a label map of small whole numbers are counted instead of sorted."""
    with np.errstate(invalid="ignore"):  # what is no small whole number comes out changed, and goes the slow way
        small = label.astype(np.uint8)
    if not np.array_equal(small, label):
        return [float(value) for value in np.unique(label)]
    # A comparison of bytes is so fast that one for each usual value costs less than `bincount`, which widens them to int64 first.
    usual = {value: int(np.count_nonzero(small == value)) for value in USUAL}
    if sum(usual.values()) == small.size:
        return [float(value) for value, count in usual.items() if count]
    return [float(value) for value in np.flatnonzero(np.bincount(small.ravel(order="K"), minlength=256))]


def to_canonical(
    label: NDArray[np.generic], convention: Convention, source: str, values: Sequence[float] | None = None
) -> NDArray[np.uint8]:
    """uint8 canonical labels; `values` that occur are looked for unless given.

    Raises:
        CaseError: a value is not an integer, or is not one of the convention's.
    """
    known = TO_CANONICAL[convention]
    unknown = [value for value in (distinct_values(label) if values is None else values) if value not in known]
    if unknown:
        hint = "give a label map with whole BraTS or MSD values, or remove the file to treat the case as unlabelled"
        raise CaseError(
            f"{source} holds label values {unknown[:8]}, which {convention} does not have (it has {sorted(known)})",
            CAVITY if convention == "brats-2023" and unknown == [4] else hint,
        )
    numbers = label.astype(np.uint8)
    canonical = numbers.copy(order="K")
    for value, meaning in known.items():
        if meaning != value:
            canonical[numbers == value] = meaning
    return canonical


def from_canonical(label: NDArray[np.uint8], convention: Convention) -> NDArray[np.uint8]:
    """Canonical labels written in a data set's own numbers, uint8."""
    numbers = label.copy(order="K")
    for meaning, value in enumerate(FROM_CANONICAL[convention]):
        if value != meaning:
            numbers[label == meaning] = value
    return numbers
