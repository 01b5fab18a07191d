"""The one tar that holds a bundle, header by header (POSIX.1-2001, pax). It is compared, never parsed.

Everything in a header follows from the manifest: path, size and executable bit; the rest is fixed. A reader that makes the header it
expects and compares bytes has nothing to be tricked with: no links, devices, sparse files, long names, overrides or second meanings.
"""

from __future__ import annotations

import re
from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
EPOCH: Final = 315532800
"""1980-01-01 UTC, the first day that a zip knows; the same in both kinds of archive."""
NAME_SIZE: Final = 100
SIZE_FIELD: Final = slice(124, 136)
TYPE_FIELD: Final = slice(156, 157)
MODE_FIELD: Final = slice(100, 108)


def header(path: str, size: int, *, executable: bool) -> bytes:
    """The blocks before a plain file's content; a path of more than 100 characters takes a pax record of its own."""
    name = path.encode("ascii")
    mode = 0o755 if executable else 0o644
    plain = _block(name[:NAME_SIZE], size, mode, b"0")
    if len(name) <= NAME_SIZE:
        return plain
    record = _record(b"path", name)
    return _block(b"pax-header", len(record), 0o644, b"x") + record + padding(len(record)) + plain


def padding(size: int) -> bytes:
    """Zeros from the end of a file's content to the next block."""
    return bytes(-size % BLOCK)


def name_in(block: bytes) -> str:
    """The name that a header block shows, for messages and for the first member, whose folder is not known yet."""
    return block[:NAME_SIZE].split(b"\0")[0].decode("ascii", errors="backslashreplace")


def size_in(block: bytes) -> int | None:
    """The size that a header block gives, where it is written as here."""
    digits = re.fullmatch(rb"([0-7]{11})\0", block[SIZE_FIELD])
    return int(digits[1], 8) if digits else None


def _block(name: bytes, size: int, mode: int, kind: bytes) -> bytes:
    def octal(value: int, width: int) -> bytes:
        return b"%0*o\0" % (width - 1, value)

    before = name.ljust(NAME_SIZE, b"\0") + octal(mode, 8) + octal(0, 8) * 2 + octal(size, 12) + octal(EPOCH, 12)
    after = kind + bytes(100) + b"ustar\00000" + bytes(32 + 32) + octal(0, 8) * 2 + bytes(155 + 12)
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record: LENGTH, space, key, =, value, newline, where LENGTH counts its own digits too."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest
