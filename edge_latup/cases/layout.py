"""Which files make a case: BraTS folders of every naming, and MSD 4-D volumes."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_latup.cases.labels import Convention
from edge_latup.errors import CaseError
from edge_latup.spec import MODALITIES, Modality

SUFFIXES: Final = (".nii.gz", ".nii")
TOKENS: Final[dict[str, Modality]] = {
    "flair": "flair", "t2f": "flair",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
    "t1": "t1", "t1n": "t1",
}  # fmt: skip
"""Last token of a file name to modality; BraTS 2018-2021 names and 2023 names."""
LABEL_TOKENS: Final = ("seg", "segm", "label")
"""BraTS 2020 case 355 was published with a label file that ends in _Segm."""
NAMES_OF_2023: Final = ("t2f", "t1c", "t2w", "t1n")
MSD_MODALITIES: Final[dict[str, Modality]] = TOKENS | {"t1w": "t1"}
MSD_ORDER: Final[tuple[Modality, ...]] = ("flair", "t1", "t1ce", "t2")
"""Channel order of MSD Task01_BrainTumour where no dataset.json says otherwise."""
MSD_LABELS: Final = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
"""Folder of images to folder of labels in an MSD task."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one modality is: a 3-D file, or one channel of a 4-D file."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case; nothing has been read yet."""

    name: str
    images: dict[Modality, Source] = field(default_factory=dict)
    label: Path | None = None
    convention: Convention = "brats-2023"

    @property
    def folder(self) -> Path:
        """Where the case's first file is."""
        return self.first_file.parent

    @property
    def first_file(self) -> Path:
        """The file of the case's first modality."""
        return next(iter(self.images.values())).path

    @property
    def path(self) -> Path:
        """What `find_cases` finds this case again by: its folder, or its 4-D file."""
        source = next(iter(self.images.values()))
        return source.path.parent if source.channel is None else source.path


def stem(path: Path) -> str:
    """File name without .nii or .nii.gz."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _absolute(path: Path) -> Path:
    """The path as it was named, without . and .. but with its links: a linked case keeps the name of the link."""
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow the links)


def _token(path: Path) -> str:
    return re.split(r"[-_.]", stem(path).lower())[-1]


def _volumes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def _claim(claimed: dict[str, Path], key: str, path: Path) -> None:
    if key in claimed:
        raise CaseError(
            f"{path.parent} has two candidates for {key}: {claimed[key].name} and {path.name}",
            "give each case a folder of its own, with one file per modality",
        )
    claimed[key] = path


def files_in(folder: Path) -> CaseFiles | None:
    """The case in one BraTS folder, or None where no file is named as a modality.

    Raises:
        CaseError: two files claim the same modality or label.
    """
    claimed: dict[str, Path] = {}
    tokens = set()
    for path in _volumes(folder):
        token = _token(path)
        key = TOKENS.get(token) or ("label" if token in LABEL_TOKENS else None)
        if key is not None:
            _claim(claimed, key, path)
            tokens.add(token)
    label = claimed.pop("label", None)
    if not claimed:
        return None
    images = {modality: Source(path=claimed[modality]) for modality in MODALITIES if modality in claimed}
    convention: Convention = "brats-2023" if tokens & set(NAMES_OF_2023) else "brats-2021"
    return CaseFiles(name=_absolute(folder).name, images=images, label=label, convention=convention)


def _channels(description: Path) -> dict[Modality, int]:
    """Modality to channel of the 4-D volumes, as the dataset.json of MSD or nnU-Net tells it."""
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        named = content.get("modality") or content["channel_names"]
        channels = {MSD_MODALITIES[str(name).lower()]: int(index) for index, name in named.items()}
        if len(channels) < len(named) or min(channels.values()) < 0:
            raise ValueError("each modality needs a channel of its own")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CaseError(
            f"{description} does not name its modalities as MSD does ({error})",
            'it should hold "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}',
        ) from error
    return channels


def _msd_case(path: Path) -> CaseFiles:
    """One 4-D volume; its dataset.json and label are looked for only where it lies in the folders of an MSD task."""
    folder = _absolute(path).parent
    channels, label = {modality: index for index, modality in enumerate(MSD_ORDER)}, None
    if folder.name in MSD_LABELS:
        description = folder.parent / "dataset.json"
        channels = _channels(description) if description.is_file() else channels
        label = folder.parent / MSD_LABELS[folder.name] / path.name
    images = {modality: Source(path=path, channel=channels[modality]) for modality in MODALITIES if modality in channels}
    return CaseFiles(name=stem(path), images=images, label=label if label and label.is_file() else None, convention="msd")


def _msd_cases(root: Path) -> list[CaseFiles]:
    folders = [root / name for name in MSD_LABELS if (root / name).is_dir()]
    return [_msd_case(path) for folder in folders for path in _volumes(folder)]


def find_cases(root: Path) -> list[CaseFiles]:
    """Every case at or under `root`, sorted by name: one case folder, a folder of case folders, an MSD task, or one 4-D file.

    Raises:
        CaseError: nothing there is a case, two files claim one modality, or two cases share a name.
    """
    if not root.exists():
        raise CaseError(f"{root} does not exist", "give a case folder or a folder of case folders")
    if root.is_file():
        found: Iterable[CaseFiles] = [_msd_case(root)]
    else:
        found = _msd_cases(root) or [case for folder in _walk(root) if (case := files_in(folder))]
    cases = sorted(found, key=lambda case: case.name)
    if not cases:
        names = "_flair, _t1ce, _t2, _t1 (BraTS 2018-2021), -t2f, -t1c, -t2w, -t1n (BraTS 2023), or imagesTr/ (MSD)"
        raise CaseError(f"no case found in {root}", f"files must be NIfTI (.nii, .nii.gz) and named {names}")
    for first, second in itertools.pairwise(cases):
        if first.name == second.name:
            raise CaseError(f"two cases are named {first.name}: {first.first_file} and {second.first_file}", "rename one of them")
    return cases


def _walk(root: Path) -> list[Path]:
    visible = [p for p in root.rglob("*") if p.is_dir() and not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return [root, *sorted(visible)]
