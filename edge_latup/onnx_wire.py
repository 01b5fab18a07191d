"""Finds ONNX external data without the onnx package, which a clinic does not have.

A tensor may say that its values lie in another file, at any path. Runtimes follow that; so a model could read files outside the
artifact, and no hash would cover what it reads. The file is walked field by field as its encoding prescribes
(protobuf.dev/programming-guides/encoding), along the messages of onnx.proto that can hold a tensor.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_latup.errors import ArtifactError

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)
TENSOR: Final = "tensor"
EXTERNAL_DATA: Final = 13
DATA_LOCATION: Final = 14
HOLDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: TENSOR, 2: TENSOR},
    TENSOR: {},
}
"""Message, field number, message in that field."""
HINT: Final = "put the weights inside where you trust their source: python -c \"import onnx; onnx.save(onnx.load('IN'), 'OUT')\""


class _EndsEarlyError(Exception):
    """Not an encoding that any reader accepts."""


def refuse_external_data(path: Path) -> None:
    """Refuse an ONNX file with a tensor outside it. What no reader of ONNX could read passes: the runtime refuses it.

    Raises:
        ArtifactError: a tensor lies elsewhere, or the file uses an encoding that could hide one.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _found(content)
    if found:
        raise ArtifactError(f"{path} {found}", HINT)


def _found(content: mmap.mmap) -> str:
    """What is wrong; empty where nothing is. A stack instead of recursion: nesting may be as deep as the file is long."""
    waiting = [("model", 0, len(content))]
    while waiting:
        message, start, end = waiting.pop()
        try:
            for field, kind, first, last in _fields(content, start, end):
                if kind in (GROUP, GROUP_END):
                    return "uses the group encoding, which ONNX does not have"
                if message == TENSOR and _is_outside(content, field, kind, first, last):
                    return "keeps weights in other files (external data), which no hash covers"
                if kind == BYTES and field in HOLDS[message]:
                    waiting.append((HOLDS[message][field], first, last))
        except _EndsEarlyError:
            continue  # what was found so far is still walked
    return ""


def _is_outside(content: mmap.mmap, field: int, kind: int, first: int, last: int) -> bool:
    """Whether a field of a tensor points elsewhere; an explicit "in this file" is allowed."""
    if field == EXTERNAL_DATA:
        return kind == BYTES
    return field == DATA_LOCATION and kind == VARINT and _varint(content, first, last)[0] != 0


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and where the value lies, of each field of a message."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        field, kind = (tag & 0xFFFFFFFF) >> 3, tag & 7
        first = at
        if kind == VARINT:
            at = _varint(content, at, end)[1]
        elif kind == BYTES:
            size, first = _varint(content, at, end)
            at = first + size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        elif kind not in (GROUP, GROUP_END):
            raise _EndsEarlyError
        if at > end:
            raise _EndsEarlyError
        yield field, kind, first, at


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and where it ends."""
    value = 0
    for index in range(10):
        if at + index >= end:
            raise _EndsEarlyError
        byte = content[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + index + 1
    raise _EndsEarlyError
