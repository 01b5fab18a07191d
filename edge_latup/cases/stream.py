"""Read no more of a file, packed or not, than its header promises: neither a bomb nor a lie about the shape fills the memory."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import CaseError

GZIP_MAGIC: Final = b"\x1f\x8b"
DEFLATE_RATIO: Final = 1032
"""DEFLATE, which gzip and zlib use, cannot expand a byte to more (zlib's technical notes): a header that promises more lies."""
TRAILING_BYTES: Final = 4096
"""What may follow the voxels: a writer's padding to whole blocks. It is less than one slice of any usual exam."""
CHUNK: Final = 1 << 20
"""Bytes unpacked at a time."""
COPY_AGAIN: Final = "copy the file again and compare checksums"


class Inflated(io.RawIOBase):
    """The next `size` bytes of `file` as the zlib stream they are; its checksum is verified where it ends."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file, self._left, self._inflate = file, size, zlib.decompressobj()

    def readable(self) -> bool:
        """True: what io.BufferedReader asks first."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io.BufferedReader gives a memoryview
        """Fill `buffer` as far as the next piece goes; 0 at the end.

        Raises:
            EOFError: the file ends before the stream does.
            zlib.error: the stream is damaged.
        """
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._next()
            plain = self._inflate.decompress(packed, len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
            if not packed and not self._inflate.eof:
                raise EOFError("the zlib stream ends too early")
        return 0

    def _next(self) -> bytes:
        packed = self._file.read(min(CHUNK, self._left))
        self._left -= len(packed)
        return packed


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A file that is open for reading, unpacked on the way.

    file: the unpacked bytes, from their beginning.
    stored: bytes that lie on disk.
    ratio: the most that one stored byte can become; 1 where nothing is packed.
    """

    path: Path
    file: io.BufferedIOBase
    stored: int
    ratio: int

    def expect(self, needed: int) -> None:
        """Refuse a header that promises more bytes than can be here, before anything is unpacked.

        Raises:
            CaseError: `needed` unpacked bytes cannot come from this file.
        """
        if self.stored * self.ratio < needed:
            what = f"{self.stored} bytes of" if self.ratio == 1 else f"{self.stored} packed bytes cannot hold the"
            raise CaseError(f"{self.path} is truncated: {what} {needed} that its header promises", COPY_AGAIN)

    def block(self, start: int, count: int) -> NDArray[np.uint8]:
        """`count` unpacked bytes from `start`, to which no more than TRAILING_BYTES follow; all checksums are then verified.

        Raises:
            CaseError: there are fewer bytes, or more.
        """
        self.expect(start + count)
        at = self.file.seek(start) if start else 0  # a packed stream may end before
        block = np.empty(count, dtype=np.uint8)  # the system gives its pages as they are filled
        rest = block.data
        while rest and (got := self.file.readinto(rest[:CHUNK])):
            rest = rest[got:]
        if rest:
            raise CaseError(f"{self.path} is truncated: {at + count - len(rest)} bytes of {start + count}", COPY_AGAIN)
        if len(self.file.read(TRAILING_BYTES + 1)) > TRAILING_BYTES:
            raise CaseError(
                f"{self.path} goes on after the {start + count} bytes that its header promises",
                "its header lies about its shape, or it is made to fill the memory: convert it again from its source",
            )
        return block


@contextmanager
def reading(path: Path) -> Iterator[io.BufferedReader]:
    """Open `path` as it is; what the file system or a decompressor says about it inside the block becomes a refusal that names it.

    Raises:
        CaseError: the file is missing or unreadable, or its packed content is truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise CaseError(f"{path} does not exist", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaseError(f"{path} is truncated or damaged ({error})", COPY_AGAIN) from error
    except OSError as error:
        raise CaseError(f"{path} cannot be read ({error.strerror or error})", "check that it is a file and that you may read it") from error


def size_of(file: io.BufferedReader) -> int:
    """Bytes of an open file on disk."""
    return os.fstat(file.fileno()).st_size


@contextmanager
def unpacked(path: Path) -> Iterator[Stream]:
    """Open a file, gzipped (told by content; several members are one stream, as RFC 1952 has it) or plain.

    Raises:
        CaseError: as `reading`.
    """
    with reading(path) as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        plain: io.BufferedIOBase = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
        yield Stream(path=path, file=plain, stored=size_of(file), ratio=DEFLATE_RATIO if packed else 1)
