"""What people call modalities, labels and regions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from edge_latup.errors import SpecError
from edge_latup.spec import Modality, Region

MODALITIES: Final[dict[Modality, str]] = {
    "flair": r"(t2)?flair|t2f",
    "t1ce": r"t1(w|weighted)?(ce|c|gd|post|postcontrast|contrast|contrastenhanced)|t1cw?",
    "t2": r"t2w?",
    "t1": r"t1[wn]?",
}
REGIONS: Final[dict[Region, str]] = {"WT": r"wt|whole(tumou?r)?", "TC": r"tc|(tumou?r)?core", "ET": r"et|enhancing(tumou?r)?"}
LABELS: Final[dict[int, str]] = {
    0: r"background|bg",
    1: r"ncr(net)?|net|necro(sis|tic)(core|tumou?r|tumou?rcore)?|necroticandnonenhancingtumou?r(core)?|nonenhancing(tumou?r|tumou?rcore)?",
    2: r"ed|o?edema|peritumou?ralo?edema|whole(tumou?r)?|wt",
    3: r"et|enhancing(tumou?r)?|gdenhancingtumou?r",
}
HINT: Final = "write a spec (--describe prints one to start from) and give it with --spec"


def _known(name: str, names: dict[str, str] | dict[Modality, str] | dict[Region, str] | dict[int, str]) -> str | int | None:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    plain = re.sub(r"^(mri|mr)", "", plain)
    return next((key for key, pattern in names.items() if re.fullmatch(pattern, plain)), None)


def modalities_of(names: Sequence[str], where: str) -> list[Modality]:
    """The modality of each channel.

    Raises:
        SpecError: a name is not known, or two mean the same.
    """
    found = [_known(name, MODALITIES) for name in names]
    if None in found or len(set(found)) != len(found):
        raise SpecError(f"{where}: channels {list(names)} are not told as different ones of {', '.join(MODALITIES)}", HINT)
    return found  # type: ignore[return-value]


def regions_of(names: Sequence[str], where: str) -> list[Region]:
    """The region of each channel.

    Raises:
        SpecError: a name is not known, or two mean the same.
    """
    found = [_known(name, REGIONS) for name in names]
    if None in found or len(set(found)) != len(found):
        raise SpecError(f"{where}: regions {list(names)} are not told as different ones of {', '.join(REGIONS)}", HINT)
    return found  # type: ignore[return-value]


def labels_of(names: Sequence[str], where: str) -> list[int]:
    """The canonical label of each channel.

    Raises:
        SpecError: a name is not known, or two mean the same.
    """
    found = [_known(name, LABELS) for name in names]
    if None in found or len(set(found)) != len(found):
        raise SpecError(f"{where}: labels {list(names)} are not told as background, necrotic core, oedema and enhancing tumour", HINT)
    return found  # type: ignore[return-value]
