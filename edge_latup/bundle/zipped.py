"""A bundle as .zip, read front to back: every header is compared with the one that the manifest asks for."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from edge_latup.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST, MAX_SIGNATURE, SIGNATURE_NAME, BundleFile, BundleManifest
from edge_latup.bundle.refusal import misplaced, refused
from edge_latup.bundle.source import BLOCK, Head
from edge_latup.bundle.zipfields import LOCAL, LOCAL_SIZE, MAX_NAME, Member, directory, fields_of, local_header, most_packed
from edge_latup.errors import InputError

LEVEL: Final = 6
MAX_ARCHIVE: Final = (1 << 32) - 2
MAX_MEMBERS: Final = (1 << 16) - 2
"""What a zip holds without extensions."""
CHUNK: Final = 1 << 16


class ZipSource:
    """Reads a .zip."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file: IO[bytes] = path.open("rb")
        self._offset = 0
        self._members: list[Member] = []

    def __enter__(self) -> ZipSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def head(self) -> Head:
        """See `Source`."""
        return Head(manifest=self._small(MANIFEST_NAME, MAX_MANIFEST), signature=self._small(SIGNATURE_NAME, MAX_SIGNATURE))

    def files(self, manifest: BundleManifest) -> Iterator[tuple[BundleFile, Iterator[bytes]]]:
        """See `Source`."""
        if [member.path for member in self._members] != [f"{manifest.label}/{MANIFEST_NAME}", f"{manifest.label}/{SIGNATURE_NAME}"]:
            raise refused(self._members[0].path, f"was renamed: its folder is not {manifest.label}")
        known, seen = {file.path for file in manifest.files}, {MANIFEST_NAME, SIGNATURE_NAME}
        prefix = f"{manifest.label}/"
        for file in manifest.files:
            member = self._member(file.path)
            if member.path != prefix + file.path:
                raise misplaced(file.path, member.path.removeprefix(prefix), known, seen)
            if member.size != file.size:
                raise refused(file.path, f"was altered: {member.size} bytes, not {file.size}")
            self._members.append(dataclasses.replace(member, executable=file.executable))
            yield file, self._content(member, file.path)
            seen.add(file.path)
        self._check_end(prefix, known, seen)

    def _small(self, name: str, limit: int) -> bytes:
        member = self._member(name)
        if member.path.partition("/")[2] != name:
            raise refused(name, f"is missing, or not in its place: {self._name} has {member.path!a} there")
        if member.size > limit:
            raise refused(name, f"is larger than {limit} bytes")
        self._members.append(member)
        content = b""
        for block in self._content(member, name):
            content += block
            if len(content) > member.size:
                break
        if len(content) != member.size:
            raise refused(name, f"is not the {member.size} bytes that its zip header promises")
        return content

    def _member(self, name: str) -> Member:
        """Read a local header; `name` is what should be there."""
        offset, fixed = self._offset, self._take(LOCAL_SIZE, name)
        if fixed[:4] != LOCAL:
            raise refused(name, f"is missing: {self._name} has no file where it belongs")
        crc, packed, size, length = fields_of(fixed)
        if length > MAX_NAME:
            raise refused(name, f"is missing: {self._name} has a name of {length} characters in its place")
        raw = self._take(length, name)
        path = raw.decode("ascii", errors="backslashreplace")
        member = Member(path=path, crc=crc, packed=packed, size=size, offset=offset)
        if fixed + raw != local_header(member):
            raise refused(path.partition("/")[2] or name, "has a zip header that edge-latup does not write")
        if packed > most_packed(size):
            raise refused(name, f"takes {packed} bytes in {self._name}, which {size} bytes never do")
        return member

    def _content(self, member: Member, name: str) -> Iterator[bytes]:
        """Unpack; at the end the packed bytes are all used, and the CRC is the header's."""
        decoder, left, crc, waiting = zlib.decompressobj(-zlib.MAX_WBITS), member.packed, 0, b""
        while not decoder.eof:
            if not waiting and left:
                waiting = self._take(min(CHUNK, left), name)
                left -= len(waiting)
            block = _inflate(decoder, waiting, name)
            if not block and not left and len(decoder.unconsumed_tail) == len(waiting) and not decoder.eof:
                raise refused(name, "is cut: its packed bytes end too early")
            waiting = decoder.unconsumed_tail
            crc = zlib.crc32(block, crc)
            yield block
        if left or waiting or decoder.unused_data:
            raise refused(name, "has bytes behind its packed content")
        if crc != member.crc:
            raise refused(name, "was altered: its CRC-32 is not the one in its zip header")

    def _check_end(self, prefix: str, known: set[str], seen: set[str]) -> None:
        expected = directory(self._members, self._offset)
        found = self._file.read(len(expected) + 1)
        if found == expected:
            return
        if found[:4] == LOCAL:
            length = min(fields_of(found[:LOCAL_SIZE])[3], MAX_NAME) if len(found) >= LOCAL_SIZE else 0
            path = found[LOCAL_SIZE : LOCAL_SIZE + length].decode("ascii", errors="backslashreplace")
            raise misplaced("the end of the archive", path.removeprefix(prefix), known, seen)
        raise refused(self._blamed(expected, found), "is not what the manifest says in the archive's directory, or something follows that")

    def _blamed(self, expected: bytes, found: bytes) -> str:
        """The file in whose entry of the directory the first difference lies; the archive itself where it is behind all."""
        start = 0
        for member in self._members:
            start += len(directory([member], 0)) - len(directory([], 0))
            if expected[:start] != found[:start]:
                return member.path.partition("/")[2]
        return self._name

    def _take(self, count: int, name: str) -> bytes:
        content = self._file.read(count)
        self._offset += len(content)
        if len(content) < count:
            raise refused(name, f"is missing or cut: {self._name} is truncated")
        return content


def _inflate(decoder: zlib._Decompress, waiting: bytes, name: str) -> bytes:
    try:
        return decoder.decompress(waiting, BLOCK)
    except zlib.error as error:
        raise refused(name, f"cannot be unpacked: its packed bytes are damaged ({error})") from None


def write_zip(file: IO[bytes], label: str, members: Iterable[tuple[str, int, bool, Iterable[bytes]]]) -> None:
    """Write members (path, bytes, executable, content) in the order given, into a file that can seek.

    Raises:
        InputError: they are too many or too large for a zip without extensions.
    """
    written: list[Member] = []
    for path, size, executable, blocks in members:
        draft = Member(path=f"{label}/{path}", crc=0, packed=0, size=size, offset=file.tell(), executable=executable)
        file.write(local_header(draft))
        start = file.tell()
        crc = _deflate(file, blocks)
        member = dataclasses.replace(draft, crc=crc, packed=file.tell() - start)
        if file.tell() > MAX_ARCHIVE - (1 << 24) or len(written) >= MAX_MEMBERS:
            raise InputError("the bundle is too large for a zip", "choose a name that ends in .tar.zst")
        file.seek(member.offset)
        file.write(local_header(member))
        file.seek(0, 2)
        written.append(member)
    file.write(directory(written, file.tell()))


def _deflate(file: IO[bytes], blocks: Iterable[bytes]) -> int:
    encoder, crc = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    for block in blocks:
        crc = zlib.crc32(block, crc)
        file.write(encoder.compress(block))
    file.write(encoder.flush())
    return crc
