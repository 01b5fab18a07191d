"""The one zip that holds a bundle, field by field (APPNOTE 6.3). It is compared, never searched.

Each header follows from the manifest, apart from the packed size; so there is no second list of files to believe, no comment, no extra
field, no encryption, nothing before, between or after. Members lie one behind the other, in the manifest's order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOCAL: Final = b"PK\x03\x04"
CENTRAL: Final = b"PK\x01\x02"
END: Final = b"PK\x05\x06"
LOCAL_SIZE: Final = 30
DEFLATED: Final = 8
VERSION: Final = 20
UNIX: Final = 3 << 8
DATE: Final = (1 << 5) | 1
"""1980-01-01, the first day that a zip knows."""
MAX_NAME: Final = 400


@dataclass(frozen=True, kw_only=True)
class Member:
    """What the headers of one file say."""

    path: str
    crc: int
    packed: int
    """Bytes as stored."""
    size: int
    """Bytes unpacked."""
    offset: int
    """Of its local header."""
    executable: bool = False


def most_packed(size: int) -> int:
    """The most that DEFLATE makes of `size` bytes; more is padding."""
    return size + (size >> 8) + 64


def local_header(member: Member) -> bytes:
    """What stands before the content."""
    return LOCAL + struct.pack("<H", VERSION) + _common(member) + struct.pack("<H", 0) + member.path.encode("ascii")


def directory(members: Sequence[Member], offset: int) -> bytes:
    """What stands behind the last content: the central directory, which begins at `offset`, and its end."""
    entries = b"".join(_entry(member) for member in members)
    return entries + END + struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(entries), offset, 0)


def fields_of(header: bytes) -> tuple[int, int, int, int]:
    """CRC-32, packed size, size and length of the name, as a local header's first 30 bytes give them."""
    crc, packed, size, name = struct.unpack_from("<IIIH", header, 14)
    return crc, packed, size, name


def _common(member: Member) -> bytes:
    """What both headers of a file have, but for the length of an extra field at the end."""
    name = len(member.path.encode("ascii"))
    return struct.pack("<HHHHIIIH", 0, DEFLATED, 0, DATE, member.crc, member.packed, member.size, name)


def _entry(member: Member) -> bytes:
    mode = 0o100755 if member.executable else 0o100644
    after = struct.pack("<HHHHII", 0, 0, 0, 0, mode << 16, member.offset)
    return CENTRAL + struct.pack("<HH", UNIX | VERSION, VERSION) + _common(member) + after + member.path.encode("ascii")
