"""One Zstandard frame (RFC 8878), read in bounded memory: Python's own module from 3.14 on, its backport before."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import IO, Any, Final

from edge_latup.bundle.refusal import refused
from edge_latup.errors import MissingDependencyError, install_hint

MAGIC: Final = b"\x28\xb5\x2f\xfd"
LEVEL: Final = 12
WINDOW_LOG: Final = 23
"""8 MiB: what is written, and the most that is read."""
CHUNK: Final = 1 << 16
EMPTY_INPUT: Final = 1 << 20
"""Bytes of input that may give no output; frames can hold any number of empty blocks."""


def zstd_module() -> Any:
    """The module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise MissingDependencyError(".tar.zst is read with backports.zstd, which is missing", install_hint("core")) from None
    return zstd


class FrameReader:
    """Reads the content of a file that is one frame and nothing else."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._zstd, self._file, self._name = zstd_module(), file, name
        limit = {self._zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        self._decoder = self._zstd.ZstdDecompressor(options=limit)
        self._read, self._given = 0, 0

    def take(self, count: int, member: str) -> bytes:
        """Exactly `count` bytes of content; `member` is what they belong to, for the message.

        Raises:
            VerificationError: the frame is damaged, ends before, or holds next to nothing in very many bytes.
        """
        content = bytearray()
        while len(content) < count:
            content += self._step(count - len(content), member)
        return bytes(content)

    def finish(self) -> None:
        """Check that the content, the frame and the file end here.

        Raises:
            VerificationError: something follows, or the frame's end or checksum is missing.
        """
        while not self._decoder.eof:
            if self._step(1, self._name):
                raise refused(self._name, "goes on after its last file")
        if self._decoder.unused_data or self._file.read(1):
            raise refused(self._name, "has something appended")

    def _step(self, most: int, member: str) -> bytes:
        if self._decoder.eof:
            raise refused(member, f"is missing or cut: {self._name} ends before its end")
        data = self._file.read(CHUNK) if self._decoder.needs_input else b""
        if self._decoder.needs_input and not data:
            raise refused(member, f"is missing or cut: {self._name} is truncated")
        self._read += len(data)
        try:
            block: bytes = self._decoder.decompress(data, max_length=most)
        except self._zstd.ZstdError as error:
            raise refused(member, f"cannot be unpacked: {self._name} is damaged ({error})") from None
        self._given += len(block)
        if self._read > 2 * self._given + EMPTY_INPUT:
            raise refused(member, f"cannot be unpacked: {self._name} is padded with empty blocks")
        return block


class FrameWriter:
    """Writes one frame: one thread and fixed parameters, so that the same content gives the same bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        zstd = zstd_module()
        parameter = zstd.CompressionParameter
        options = {parameter.compression_level: LEVEL, parameter.window_log: WINDOW_LOG, parameter.checksum_flag: 1}
        self._file, self._encoder = file, zstd.ZstdCompressor(options=options)

    def write(self, content: bytes) -> None:
        """Append to the content."""
        self._file.write(self._encoder.compress(content))

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._file.write(self._encoder.flush())
