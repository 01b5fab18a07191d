"""Which files make a case: BraTS folders of every naming, flat or with a folder per file, and MSD 4-D volumes."""

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

SUFFIXES: Final = (".nii.gz", ".nii", ".mha", ".mhd")
TOKENS: Final[dict[str, Modality]] = {
    "flair": "flair", "t2f": "flair",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
    "t1": "t1", "t1n": "t1",
}  # fmt: skip
"""Last token of a file name to modality; BraTS 2018-2021 names and 2023 names."""
LABEL_TOKENS: Final = ("seg", "segm", "label")
"""BraTS 2020 case 355 was published with a label file that ends in _Segm."""
NAME_OF_2013: Final = re.compile(r"vsd\.brain.*\.(?:mr_(flair|t1c|t1|t2)|(ot))\.[^.]+", re.IGNORECASE)
"""BRATS 2012-2015: VSD.Brain.XX.O.MR_Flair.54512, the label VSD.Brain_3more.XX.O.OT.54517; a file, and the folder it came in."""
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
    """The files of one case; nothing has been read yet. `nested`: each file lies in a folder of its own, as BRATS 2013 came."""

    name: str
    images: dict[Modality, Source] = field(default_factory=dict)
    label: Path | None = None
    convention: Convention = "brats-2023"
    nested: bool = False

    @property
    def folder(self) -> Path:
        """The case's folder: where its first file is, or the folder above where each file has one of its own."""
        parent = self.first_file.parent
        return parent.parent if self.nested else parent

    @property
    def first_file(self) -> Path:
        """The file of the case's first modality."""
        return next(iter(self.images.values())).path

    @property
    def path(self) -> Path:
        """What `find_cases` finds this case again by: its folder, or its 4-D file."""
        return self.folder if next(iter(self.images.values())).channel is None else self.first_file


def stem(path: Path) -> str:
    """File name without .nii.gz, .nii, .mha or .mhd."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def absolute(path: Path) -> Path:
    """The path as it was named, without . and .. but with its links: a linked case keeps the name of the link."""
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow the links)


def _token(path: Path) -> str:
    """The part of a file name that says what it holds."""
    of_2013 = NAME_OF_2013.fullmatch(stem(path))
    if of_2013:
        return "label" if of_2013[2] else of_2013[1].lower()
    return re.split(r"[-_.]", stem(path).lower())[-1]


def _volumes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def _volumes_below(folder: Path) -> list[Path]:
    """The volumes in the folders of BRATS 2013 that hold one file each and are named after it."""
    owned = [p for p in sorted(folder.iterdir()) if NAME_OF_2013.fullmatch(p.name) and p.is_dir()]
    return [path for place in owned for path in _volumes(place) if NAME_OF_2013.fullmatch(stem(path))]


def _claim(folder: Path, claimed: dict[str, Path], key: str, path: Path) -> None:
    if key in claimed:
        raise CaseError(
            f"{folder} has two candidates for {key}: {claimed[key].name} and {path.name}",
            "give each case a folder of its own, with one file per modality",
        )
    claimed[key] = path


def _convention(paths: Iterable[Path]) -> Convention:
    """What the names say of the label's numbers; its values may correct it."""
    if any(NAME_OF_2013.fullmatch(stem(path)) for path in paths):
        return "brats-2013"
    return "brats-2023" if any(_token(path) in NAMES_OF_2023 for path in paths) else "brats-2021"


def files_in(folder: Path) -> CaseFiles | None:
    """The case in one BraTS folder, or None where no file is named as a modality.

    Raises:
        CaseError: two files claim the same modality or label.
    """
    claimed: dict[str, Path] = {}
    flat = _volumes(folder)
    for path in [*flat, *_volumes_below(folder)]:
        token = _token(path)
        key = TOKENS.get(token) or ("label" if token in LABEL_TOKENS else None)
        if key is not None:
            _claim(folder, claimed, key, path)
    convention = _convention(list(claimed.values()))
    label = claimed.pop("label", None)
    if not claimed:
        return None
    images = {modality: Source(path=claimed[modality]) for modality in MODALITIES if modality in claimed}
    nested = next(iter(images.values())).path not in flat
    return CaseFiles(name=absolute(folder).name, images=images, label=label, convention=convention, nested=nested)


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
    folder = absolute(path).parent
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
        names = "_flair, _t1ce, _t2, _t1 (BraTS 2018-2021), -t2f, -t1c, -t2w, -t1n (BraTS 2023), "
        names += ".MR_Flair.NUMBER (BRATS 2013), or imagesTr/ (MSD)"
        raise CaseError(f"no case found in {root}", f"files must be NIfTI or MetaImage ({', '.join(SUFFIXES)}) and named {names}")
    for first, second in itertools.pairwise(cases):
        if first.name == second.name:
            raise CaseError(f"two cases are named {first.name}: {first.first_file} and {second.first_file}", "rename one of them")
    return cases


def _walk(root: Path) -> list[Path]:
    """Every folder that may be a case's: not the hidden ones, nor those that belong to one file of the case above."""
    found = [(p, p.relative_to(root).parts) for p in root.rglob("*") if p.is_dir()]
    own = [p for p, parts in found if not any(part.startswith(".") or NAME_OF_2013.fullmatch(part) for part in parts)]
    return [root, *sorted(own)]
