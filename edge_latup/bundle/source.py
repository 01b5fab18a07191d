"""What a folder and both kinds of archive have in common when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from edge_latup.bundle.manifest import BundleFile, BundleManifest
from edge_latup.bundle.refusal import refused

BLOCK: Final = 1 << 20
"""Bytes of a file held at once."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The two files that are read before anything is known: nothing of them is believed yet."""

    manifest: bytes
    signature: bytes


class Source(Protocol):
    """A bundle being read once, from its first byte to its last."""

    def __enter__(self) -> Source: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def head(self) -> Head:
        """The manifest and its signature.

        Raises:
            VerificationError: one is missing, too large, or not written as this project writes them.
        """
        ...

    def files(self, manifest: BundleManifest) -> Iterator[tuple[BundleFile, Iterable[bytes]]]:
        """Every file of the manifest with its bytes, which must be read before the next is asked for; then, that nothing else is there.

        Raises:
            VerificationError: what is there is not what the manifest lists, apart from the content of files.
        """
        ...


def checked(file: BundleFile, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass the bytes on, hashing them; never more than the manifest promises.

    Raises:
        VerificationError: they are fewer, more or others than the manifest says. The last block is passed on before that is known.
    """
    digest, left = hashlib.sha256(), file.size
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise refused(file.path, f"is longer than the {file.size} bytes that were signed")
        digest.update(block)
        yield block
    if left:
        raise refused(file.path, f"is cut: {file.size - left} of {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise refused(file.path, "was altered: its SHA-256 is not the one that was signed")
