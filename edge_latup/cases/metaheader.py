"""The text header of a MetaImage: what it says of the voxels, read strictly and refused by name where it is not plain."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edge_latup.cases.stream import reading
from edge_latup.errors import CaseError

LONGEST: Final = 1 << 16
"""Bytes in which the text must end; an ordinary one has 400."""
LINE: Final = re.compile(r"([!-9;<>-~]+)[ \t]*[=:][ \t]*(.*?)\s*")
"""A name of printable ASCII, such as "dim[0]" or "0008|0060", which SimpleITK copies from other formats, and its text."""
KINDS: Final = {
    "MET_CHAR": "i1", "MET_SHORT": "i2", "MET_INT": "i4", "MET_LONG": "i4", "MET_LONG_LONG": "i8",
    "MET_UCHAR": "u1", "MET_USHORT": "u2", "MET_UINT": "u4", "MET_ULONG": "u4", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""ElementType to numpy's name of it; a MET_LONG has four bytes, on every machine."""
DIRECTIONS: Final = ("TransformMatrix", "Orientation", "Rotation")
"""Names under which MetaImage keeps the directions of the array axes."""
NUMBERS: Final = (*DIRECTIONS, "ElementSpacing", "Offset", "Origin", "Position")
"""Fields of the geometry. SimpleITK takes what is no number in them for 0, so they are looked at before it is asked."""
ONLY: Final = {"NDims": "3", "BinaryData": "True", "HeaderSize": "0", "ElementNumberOfChannels": "1"}
"""Fields with the one value that is read: three dimensions, in binary, right behind the header, one number per voxel."""
OPTIONAL: Final = ("HeaderSize", "ElementNumberOfChannels")
"""Those of them that have this value where they are missing."""
CONVERT: Final = "convert or copy the file again, for example with SimpleITK.WriteImage"


@dataclass(frozen=True, kw_only=True)
class MetaHeader:
    """What a header says; not yet held against the voxels.

    data: the file of the voxels, which may be the header's own; they begin at byte `start`.
    packed: the voxels are one zlib stream, of `packed_size` bytes where the header tells it.
    """

    path: Path
    data: Path
    start: int
    shape: tuple[int, int, int]
    kind: np.dtype[Any]
    packed: bool
    packed_size: int | None

    @property
    def size(self) -> int:
        """Bytes of all voxels, unpacked."""
        return math.prod(self.shape) * self.kind.itemsize


def read_metaheader(path: Path) -> MetaHeader:
    """Read and check the text before the voxels.

    Raises:
        CaseError: the file is missing, is not a MetaImage, lacks its geometry, or keeps its voxels in a form that is not read: as text,
            as several numbers per voxel, in several files, or outside the header's folder.
    """
    with reading(path) as file:
        fields, end = _fields(path, file.read(LONGEST))
    for name, value in ONLY.items():
        found = fields.get(name, value if name in OPTIONAL else "nothing")
        if found.lower() != value.lower():
            raise CaseError(f"{path} says {name} = {found}; only {value} is read", "export one 3-D volume per modality, in binary")
    if not any(name in fields for name in DIRECTIONS):
        raise CaseError(f"{path} has no {DIRECTIONS[0]}: which side is left is unknown", "export the series again with its geometry")
    if "ElementSpacing" not in fields:
        raise CaseError(f"{path} has no ElementSpacing: its size is unknown", "export the series again with its geometry")
    data = _data_file(path, fields["ElementDataFile"])
    try:
        numbers = [float(number) for name in NUMBERS for number in fields.get(name, "").split()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("its geometry is not finite")
        x, y, z = (int(length) for length in fields["DimSize"].split())
        order: Literal["<", ">"] = ">" if _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB") else "<"
        return MetaHeader(
            path=path, data=data, start=end if data == path else 0, shape=(x, y, z),
            kind=np.dtype(KINDS[fields["ElementType"]]).newbyteorder(order), packed=_true(fields, "CompressedData"),
            packed_size=int(fields["CompressedDataSize"]) if "CompressedDataSize" in fields else None,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise CaseError(f"{path} has a MetaImage header that cannot be read ({error})", CONVERT) from error


def _fields(path: Path, head: bytes) -> tuple[dict[str, str], int]:
    """Name to text, and the byte after the last line, ElementDataFile.

    A name that comes twice is refused: SimpleITK would take the other one.
    """
    fields: dict[str, str] = {}
    start = 0
    while "ElementDataFile" not in fields:
        line, newline, _ = head[start:].partition(b"\n")
        match = LINE.fullmatch(line.decode("utf-8", errors="surrogateescape"))
        if match is None or match[1] in fields:
            raise CaseError(f"{path} is not a MetaImage file, or is damaged or cut inside its header", CONVERT)
        fields[match[1]] = match[2]
        start += len(line) + len(newline)
    return fields, start


def _data_file(path: Path, named: str) -> Path:
    """The header's own file, or one beside it: a header must not open any other file of the machine."""
    if named.upper() == "LOCAL":
        return path
    if not named or named in (".", "..") or any(sign in named for sign in "/\\%\0") or named.startswith("LIST"):
        raise CaseError(
            f"{path} keeps its voxels in {named!r}, which is not the name of one file beside it",
            "put header and data into one folder, or convert them to one .mha file",
        )
    return path.with_name(named)


def _true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").lower() in ("true", "t", "1")
