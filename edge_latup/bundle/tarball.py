"""A bundle as .tar.zst, read front to back: every header is compared with the one that the manifest asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from edge_latup.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST, MAX_SIGNATURE, SIGNATURE_NAME, BundleFile, BundleManifest
from edge_latup.bundle.refusal import misplaced, refused
from edge_latup.bundle.source import BLOCK, Head
from edge_latup.bundle.ustar import BLOCK as RECORD
from edge_latup.bundle.ustar import END, MODE_FIELD, TYPE_FIELD, header, name_in, padding, size_in
from edge_latup.bundle.zstd import FrameReader, FrameWriter
from edge_latup.errors import VerificationError


class TarSource:
    """Reads a .tar.zst."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file: IO[bytes] = path.open("rb")
        self._frame = FrameReader(self._file, self._name)
        self._heads: list[str] = []

    def __enter__(self) -> TarSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def head(self) -> Head:
        """See `Source`."""
        return Head(manifest=self._small(MANIFEST_NAME, MAX_MANIFEST), signature=self._small(SIGNATURE_NAME, MAX_SIGNATURE))

    def files(self, manifest: BundleManifest) -> Iterator[tuple[BundleFile, Iterator[bytes]]]:
        """See `Source`."""
        if self._heads != [f"{manifest.label}/{MANIFEST_NAME}", f"{manifest.label}/{SIGNATURE_NAME}"]:
            raise refused(self._heads[0], f"was renamed: its folder is not {manifest.label}")
        known, seen = {file.path for file in manifest.files}, {MANIFEST_NAME, SIGNATURE_NAME}
        for file in manifest.files:
            self._check_header(file, manifest.label, known, seen)
            yield file, self._blocks(file.path, file.size)
            self._check_padding(file.path, file.size)
            seen.add(file.path)
        self._check_end(manifest.label, known, seen)

    def _small(self, name: str, limit: int) -> bytes:
        found = self._frame.take(RECORD, name)
        path, size = name_in(found), size_in(found)
        if path.partition("/")[2] != name:
            raise refused(name, f"is missing, or not in its place: {self._name} has {path!a} there")
        if size is None or found != header(path, size, executable=False):
            raise refused(name, "has a tar header that edge-latup does not write")
        if size > limit:
            raise refused(name, f"is larger than {limit} bytes")
        self._heads.append(path)
        content = self._frame.take(size, name)
        self._check_padding(name, size)
        return content

    def _blocks(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, BLOCK):
            yield self._frame.take(min(BLOCK, size - start), name)

    def _check_header(self, file: BundleFile, label: str, known: set[str], seen: set[str]) -> None:
        expected = header(f"{label}/{file.path}", file.size, executable=file.executable)
        found = self._frame.take(len(expected), file.path)
        if found != expected:
            raise _difference(expected, found, file.path, label, known, seen)

    def _check_padding(self, name: str, size: int) -> None:
        zeros = padding(size)
        if self._frame.take(len(zeros), name) != zeros:
            raise refused(name, "is followed by something that is not the padding of a tar")

    def _check_end(self, label: str, known: set[str], seen: set[str]) -> None:
        found = self._frame.take(len(END), self._name)
        if found != END:
            raise misplaced("the end of the archive", _inside(name_in(found), label), known, seen)
        self._frame.finish()


def _inside(path: str, label: str) -> str:
    return path.removeprefix(f"{label}/")


def _difference(expected: bytes, found: bytes, name: str, label: str, known: set[str], seen: set[str]) -> VerificationError:
    """Why two headers differ, in the order in which it matters."""
    if found[: len(END)] == END[: len(found)]:
        return refused(name, "is missing")
    if name_in(found) != name_in(expected):
        return misplaced(name, _inside(name_in(found), label), known, seen)
    if found[TYPE_FIELD] != expected[TYPE_FIELD]:
        return refused(name, f"is not a plain file in the archive (tar type {found[TYPE_FIELD]!a})")
    if found[MODE_FIELD] != expected[MODE_FIELD]:
        return refused(name, "has other permissions than were signed")
    if size_in(found) != size_in(expected):
        return refused(name, f"was altered: {size_in(found)} bytes, not {size_in(expected)}")
    return refused(name, "has a tar header that edge-latup does not write")


def write_tar(file: IO[bytes], label: str, members: Iterable[tuple[str, int, bool, Iterable[bytes]]]) -> None:
    """Write members (path, bytes, executable, content) in the order given."""
    with FrameWriter(file) as frame:
        for path, size, executable, blocks in members:
            frame.write(header(f"{label}/{path}", size, executable=executable))
            for block in blocks:
                frame.write(block)
            frame.write(padding(size))
        frame.write(END)
