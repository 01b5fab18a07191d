"""A verified copy of a bundle in a fresh folder: what is written is what was hashed, so nothing can be swapped in between."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_latup.bundle.keys import PublicKey
from edge_latup.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, BundleFile
from edge_latup.bundle.names import fault_of
from edge_latup.bundle.refusal import refused
from edge_latup.bundle.verify import VerifiedBundle, read_bundle, verify
from edge_latup.errors import InputError

RESERVE: Final = 16 << 20
"""Bytes of disk left over."""
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def unpack_verified(bundle: Path, key: PublicKey, destination: Path, *, today: datetime.date | None = None) -> VerifiedBundle:
    """Copy a folder, .tar.zst or .zip to `destination`, which must not exist; run from there, never from `bundle`.

    The bundle is read twice: the first time nothing is written; the second time each file is hashed while it is written, into a
    folder beside `destination` that gets its name only when all of it was right and is on the disk. A power cut leaves at most
    that folder, `.NAME.*.part`, which may be removed.

    Raises:
        VerificationError: it is not what was signed, or changed between the two readings.
        InputError: `destination` exists, or the disk is full or read-only. Nothing is left behind in either case.
    """
    first = verify(bundle, key, today=today)
    _refuse_existing(destination)
    temporary = _beside(destination, first.manifest.size)
    try:
        second = read_bundle(bundle, key, _Writer(temporary), today=today)
        if second.head != first.head:
            raise refused(MANIFEST_NAME, "changed while the bundle was read")
        _write(temporary / MANIFEST_NAME, [second.head.manifest], executable=False)
        _write(temporary / SIGNATURE_NAME, [second.head.signature], executable=False)
        _put_in_place(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return second


class _Writer:
    """Writes each file as it comes, under a name that is checked once more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, file: BundleFile, blocks: Iterable[bytes]) -> None:
        if fault := fault_of(file.path):
            raise refused(file.path, fault)
        path = self._folder / file.path
        _make(path.parent)
        _write(path, blocks, executable=file.executable)


def _beside(destination: Path, size: int) -> Path:
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(destination.parent).free
        if free < size + RESERVE:
            raise InputError(f"{destination.parent} has {free >> 20} MiB free, {(size + RESERVE) >> 20} are needed", "make room")
        return Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".part"))
    except OSError as error:
        raise _no_room(destination, error) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_room(folder, error) from error


def _write(path: Path, blocks: Iterable[bytes], *, executable: bool) -> None:
    """Errors of writing are told from those of reading, which belong to the bundle."""
    try:
        handle = os.open(path, CREATE, 0o755 if executable else 0o644)
    except OSError as error:
        raise _no_room(path, error) from error
    with os.fdopen(handle, "wb", buffering=0) as file:
        for block in blocks:
            _append(file.fileno(), block, path)
        try:
            path.chmod(0o755 if executable else 0o644)
            os.fsync(file.fileno())
        except OSError as error:
            raise _no_room(path, error) from error


def _append(handle: int, block: bytes, path: Path) -> None:
    left = memoryview(block)
    try:
        while left:
            left = left[os.write(handle, left) :]
    except OSError as error:
        raise _no_room(path, error) from error


def _put_in_place(temporary: Path, destination: Path) -> None:
    _refuse_existing(destination)
    try:
        temporary.chmod(0o755)
        for folder in (path for path in (temporary, *temporary.rglob("*")) if path.is_dir()):
            _sync(folder)
        temporary.rename(destination)
        _sync(destination.parent)
    except OSError as error:
        raise _no_room(destination, error) from error


def _sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut; Windows opens no folders, and does that by itself."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_existing(destination: Path) -> None:
    if destination.exists() or destination.is_symlink():
        raise InputError(f"{destination} exists", "choose a folder that does not exist yet")


def _no_room(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}", "free disk space, or choose another folder")
