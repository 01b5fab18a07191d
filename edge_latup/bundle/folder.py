"""A bundle as a folder: plain files, each under the one name it was signed with, and nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from edge_latup.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST, MAX_SIGNATURE, RESERVED, SIGNATURE_NAME, BundleFile, BundleManifest
from edge_latup.bundle.names import folders_of
from edge_latup.bundle.refusal import refused
from edge_latup.bundle.source import BLOCK, Head
from edge_latup.errors import VerificationError

OPEN: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""No symbolic link is followed, and no FIFO is waited for, should one have taken the file's place."""
SPECIAL: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
KINDS: Final = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class FolderSource:
    """Reads a folder."""

    def __init__(self, path: Path) -> None:
        self._root = path.resolve()  # where the operator points to may be a link; nothing inside may be

    def __enter__(self) -> FolderSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def head(self) -> Head:
        """See `Source`."""
        return Head(manifest=self._small(MANIFEST_NAME, MAX_MANIFEST), signature=self._small(SIGNATURE_NAME, MAX_SIGNATURE))

    def files(self, manifest: BundleManifest) -> Iterator[tuple[BundleFile, Iterator[bytes]]]:
        """See `Source`; what is there is looked at before any file is read, as that is quick."""
        self._check_tree({file.path: file for file in manifest.files})
        for file in manifest.files:
            yield file, self._blocks(file.path)

    def _small(self, name: str, limit: int) -> bytes:
        content = b""
        for block in self._blocks(name):
            content += block
            if len(content) > limit:
                raise refused(name, f"is larger than {limit} bytes")
        return content

    def _blocks(self, name: str) -> Iterator[bytes]:
        path = self._root / name
        try:
            handle = os.open(path, OPEN)
        except FileNotFoundError:
            raise refused(name, "is missing") from None
        except OSError as error:
            raise _no_plain_file(path, name, error) from None
        with os.fdopen(handle, "rb", buffering=0) as file:
            _check_plain(os.fstat(file.fileno()), name)
            while block := file.read(BLOCK):
                yield block

    def _check_tree(self, files: dict[str, BundleFile]) -> None:
        """Stops at the first stranger, so that a folder with millions of them costs neither memory nor time."""
        folders, seen, waiting = folders_of(files), set[str](), [""]
        while waiting:
            above = waiting.pop()
            with os.scandir(self._root / above) as entries:
                for entry in entries:
                    name = f"{above}/{entry.name}" if above else entry.name
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode) and not _is_reparse(facts):
                        if name not in folders:
                            raise refused(name, "was added or renamed: the manifest has no such folder")
                        waiting.append(name)
                        continue
                    _check_plain(facts, name)
                    if name not in files and name not in RESERVED:
                        raise refused(name, "was added or renamed: it is not in the manifest")
                    _check_facts(facts, name, files.get(name))
                    seen.add(name)
        if missing := next((name for name in files if name not in seen), None):
            raise refused(missing, "is missing")


def _is_reparse(facts: os.stat_result) -> bool:
    """Whether Windows would lead on to another place: a junction, a mount point, a link."""
    return bool(getattr(facts, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0))


def _check_plain(facts: os.stat_result, name: str) -> None:
    kind = KINDS.get(stat.S_IFMT(facts.st_mode), "" if stat.S_ISREG(facts.st_mode) else "a special file")
    if kind or _is_reparse(facts):
        raise refused(name, f"is {kind or 'a link to another place'}, not a plain file")
    if facts.st_nlink > 1:
        raise refused(name, f"has {facts.st_nlink} names (hard links), so it can be changed from outside the bundle")


def _check_facts(facts: os.stat_result, name: str, file: BundleFile | None) -> None:
    if os.name == "posix":
        if facts.st_mode & SPECIAL:
            raise refused(name, "has a set-user-id, set-group-id or sticky bit")
        if bool(facts.st_mode & 0o111) != (file is not None and file.executable):
            hint = "copy the archive instead of the folder: USB sticks often keep no permissions"
            raise refused(name, "has another executable bit than was signed", hint)
    if file is not None and facts.st_size != file.size:
        what = "cut" if facts.st_size < file.size else "longer than was signed"
        raise refused(name, f"is {what}: {facts.st_size} bytes, not {file.size}")


def _no_plain_file(path: Path, name: str, error: OSError) -> VerificationError:
    """Why a file could not be opened: O_NOFOLLOW gives ELOOP for a link, a socket ENXIO."""
    try:
        _check_plain(path.lstat(), name)
    except OSError:
        pass
    except VerificationError as refusal:
        return refusal
    return refused(name, f"cannot be read: {error.strerror}")
