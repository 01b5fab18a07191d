"""Outputs of an earlier run: which are finished and can be kept, which must not be replaced unasked, and what a killed run left."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from edge_latup.artifact import sha256_of
from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.write import OURS
from edge_latup.errors import InputError, SpecError
from edge_latup.records import read_record
from edge_latup.segmentation.case import Segmenter, input_records
from edge_latup.segmentation.records import SegmentationRecord, sidecar_of

fcntl: Final[ModuleType | None] = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
"""None on Windows, which has none."""

TEMPORARY: Final = r"[a-z0-9_]{8}"
"""What `records.replacing` puts between a file's name and ".part"."""
READ: Final = 1 << 20
"""Bytes at a time."""
HEADER: Final = 348
"""Bytes of a NIfTI-1 header."""
REMEDY: Final = "choose another --out, or add --overwrite to replace such files"


def label_map_of(folder: Path, name: str) -> Path:
    """Where a cohort's label map of a case lies."""
    return folder / f"{name}.nii.gz"


def intact(label_map: Path) -> SegmentationRecord | None:
    """The sidecar of a label map that is whole: readable, and the label map is byte for byte the one it describes."""
    try:
        record = read_record(SegmentationRecord, sidecar_of(label_map))
        same_size = label_map.stat().st_size == record.label_map.size
        return record if same_size and sha256_of(label_map) == record.label_map.sha256 else None
    except (SpecError, OSError):
        return None


def _refuse_corrected(label_map: Path) -> None:
    """Refuse to replace a label map that is whole, but not what its sidecar describes, or not ours.

    One that is damaged, or that a killed run left without its sidecar, is made again.
    """
    try:
        with gzip.open(label_map) as content:
            header = content.read(HEADER)
            while content.read(READ):
                pass
    except (OSError, EOFError, zlib.error):
        return
    try:
        read_record(SegmentationRecord, sidecar_of(label_map))
    except (SpecError, OSError):
        if OURS in header:
            return
        raise InputError(f"{label_map} is there already, and was not made by edge-latup", REMEDY) from None
    raise InputError(f"{label_map} was changed after it was made, by hand or by another tool", REMEDY)


def other_making(record: SegmentationRecord, segmenter: Segmenter) -> str:
    """How the model or the settings that made a label map differ from the segmenter's; empty where they are the same.

    A label map of the declared policy is kept under any memory budget: it is what was asked for. One of smaller windows is what the
    same budget gives, and no other.
    """
    if record.artifact_sha256 != segmenter.artifact.digest:
        return f"another model ({record.artifact})"
    made, wanted = record.settings, segmenter.settings()
    if made.gave_way is not None and made.gave_way.memory_budget != segmenter.budget:
        return "smaller windows, under another memory budget"
    names = ", ".join(_differences(made.asked_for.model_dump(), wanted.model_dump()))
    return f"other settings ({names})" if names else ""


def _differences(made: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the keys whose values differ; those inside the spec by themselves."""
    for key in wanted:
        if made[key] != wanted[key]:
            yield from _differences(made[key], wanted[key], "spec.") if key == "spec" else [f"{prefix}{key}"]


def kept(segmenter: Segmenter, files: CaseFiles, label_map: Path, *, overwrite: bool) -> SegmentationRecord | None:
    """The record of a finished label map that is just what would be made now; None where it is to be made.

    Raises:
        InputError: a finished label map of another making, or of other files, or one that was changed since, is in its place, and
            `overwrite` is not set.
    """
    record = intact(label_map)
    if record is None and not overwrite:
        _refuse_corrected(label_map)
    # A modality that is missing is refused when the case is read, with a message of its own.
    if record is None or not set(segmenter.spec.modalities) <= files.images.keys():
        return None
    other = other_making(record, segmenter)
    if not other and (record.case != files.name or record.inputs != input_records(files, segmenter.spec)):
        other = "other image files"
    if other and not overwrite:
        raise InputError(f"{label_map} is finished, but was made with {other}", REMEDY)
    return None if other else record


def refuse_others(segmenter: Segmenter, cases: Iterable[CaseFiles], folder: Path) -> None:
    """Refuse a run over finished label maps of another model or other settings, or changed since, before anything is segmented.

    The image files are compared when a case's turn comes: reading those of all cases first would take minutes.

    Raises:
        InputError: there is one; the message names the first.
    """
    for files in cases:
        label_map = label_map_of(folder, files.name)
        record = intact(label_map)
        if record is None:
            _refuse_corrected(label_map)
        elif other := other_making(record, segmenter):
            raise InputError(f"{label_map} is finished, but was made with {other}", REMEDY)


def refuse_inputs(cases: Iterable[CaseFiles], folder: Path) -> None:
    """Refuse a folder in which a label map would replace a file of a case.

    Raises:
        InputError: as said; the message names the file.
    """
    cases = tuple(cases)
    outputs = {label_map_of(folder, files.name).resolve() for files in cases}
    for files in cases:
        for source in (*(image.path for image in files.images.values()), *filter(None, [files.label])):
            if source.resolve() in outputs:
                raise InputError(f"--out {folder} would replace {source}, a file of case {files.name}", "choose another folder")


def remove_leftovers(cases: Iterable[CaseFiles], folder: Path) -> None:
    """Remove the temporary files that a killed run left of these cases' outputs, and nothing else."""
    names = "|".join(re.escape(files.name) for files in cases)
    pattern = re.compile(rf"\.(?:{names})\.(?:nii\.gz\.{TEMPORARY}\.part\.nii\.gz|json\.{TEMPORARY}\.part)")
    for path in folder.iterdir():
        if pattern.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for one run: another's temporary files look like leftovers. The system lets go of it however the run ends.

    Where a folder cannot be locked (Windows, some file systems over the network) two runs are not kept apart.

    Raises:
        InputError: another run is writing there.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run is writing into {folder}", "wait for it, or choose another --out") from None
        except OSError:
            pass  # a file system that cannot lock a folder, such as some over the network
        yield
    finally:
        os.close(handle)
