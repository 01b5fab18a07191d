"""Tricks of zip: two lists that disagree, flags, hidden bytes, bombs. Each is refused and named."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from bundles import FILES, LABEL, Member, archive_of

from edge_latup.bundle import zipfields

Change = Callable[[bytes], bytes]
MODEL: Final = "artifact/model.onnx"


# Zip: where a member's local header and its entry in the directory lie.


def _local(archive: bytes, path: str) -> int:
    return archive.index(f"{LABEL}/{path}".encode()) - 30


def _entry(archive: bytes, path: str) -> int:
    return archive.rindex(f"{LABEL}/{path}".encode()) - 46


def _patch(where: Callable[[bytes, str], int], offset: int, value: bytes, path: str = MODEL) -> Change:
    def change(archive: bytes) -> bytes:
        start = where(archive, path) + offset
        return archive[:start] + value + archive[start + len(value) :]

    return change


def _both(offset: int, value: bytes) -> Change:
    """In both headers, which agree then; the directory's fields lie two bytes further."""
    return lambda archive: _patch(_entry, offset + 2, value)(_patch(_local, offset, value)(archive))


def _inserted(where: Callable[[bytes], int], content: bytes) -> Change:
    return lambda archive: archive[: where(archive)] + content + archive[where(archive) :]


def _directory(archive: bytes) -> int:
    return archive.index(b"PK\x01\x02")


def _renamed(where: Callable[[bytes, str], int], offset: int, name: bytes) -> Change:
    return lambda archive: _patch(where, offset + len(LABEL) + 1, name.ljust(len("install.sh"), b"x"), "install.sh")(archive)


def _bomb(archive: bytes) -> bytes:
    """64 MiB of zeros where a small file is promised."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = b"".join(encoder.compress(bytes(1 << 24)) for _ in range(4)) + encoder.flush()
    start = _local(archive, MODEL)
    size = len(FILES[MODEL][0])
    head = zipfields.local_header(zipfields.Member(path=f"{LABEL}/{MODEL}", crc=0, packed=4000, size=size, offset=start))
    return archive[:start] + head + stream


EOCD: Final = 22
ZIP_TRICKS: Final[dict[str, tuple[Change, str]]] = {
    "encryption flag": (_both(6, b"\1"), f"{MODEL} has a zip header"),
    "strong encryption flag": (_both(6, b"\x41"), f"{MODEL} has a zip header"),
    "data descriptor flag": (_both(6, b"\x08"), f"{MODEL} has a zip header"),
    "name in UTF-8 flag": (_both(6, b"\0\x08"), f"{MODEL} has a zip header"),
    "method stored": (_both(8, b"\0\0"), f"{MODEL} has a zip header"),
    "method LZMA": (_both(8, b"\x0e\0"), f"{MODEL} has a zip header"),
    "time in both": (_both(10, b"\1\0"), f"{MODEL} has a zip header"),
    "time in the directory": (_patch(_entry, 12, b"\1\0"), f"{MODEL} is not what the manifest says"),
    "CRC in both": (_both(14, b"abcd"), f"{MODEL} was altered: its CRC-32"),
    "CRC in the directory": (_patch(_entry, 16, b"abcd"), f"{MODEL} is not what the manifest says"),
    "packed size in both": (_both(18, b"\x10\0\0\0"), f"{MODEL} "),
    "packed size in the directory": (_patch(_entry, 20, b"\1\0\0\0"), f"{MODEL} is not what the manifest says"),
    "packed size of 4 GiB": (_both(18, b"\xff\xff\xff\xff"), f"{MODEL} takes 4294967295 bytes"),
    "size in both": (_both(22, b"\x10\0\0\0"), f"{MODEL} "),
    "size in the directory": (_patch(_entry, 24, b"\1\0\0\0"), f"{MODEL} is not what the manifest says"),
    "name in the local header": (_renamed(_local, 30, b"../../e"), "../../e"),
    "name in the directory": (_renamed(_entry, 46, b"../../e"), "install.sh is not what the manifest says"),
    "name that is absolute": (_patch(_local, 30, b"/etc/evil", "install.sh"), "/etc/evil"),
    "name with a drive": (_patch(_local, 30, b"C:\\", "install.sh"), "C:\\\\"),
    "name with a NUL": (_renamed(_local, 30, b"in\0tall.sh"), "in\\x00tall.sh was added"),
    "name not ASCII": (_renamed(_local, 30, "\u00e9stall.sh".encode()), "\\\\xc3\\\\xa9stall.sh has a zip header"),
    "name of 64 KiB": (_patch(_local, 26, b"\xff\xff"), f"{MODEL} is missing"),
    "extra field": (_patch(_local, 28, b"\4\0"), f"{MODEL} has a zip header"),
    "extra field in the directory": (_patch(_entry, 30, b"\4\0"), f"{MODEL} is not what the manifest says"),
    "comment of a file": (_patch(_entry, 32, b"\4\0"), f"{MODEL} is not what the manifest says"),
    "symbolic link": (_patch(_entry, 38, struct.pack("<I", 0o120777 << 16)), f"{MODEL} is not what the manifest says"),
    "executable": (_patch(_entry, 38, struct.pack("<I", 0o100755 << 16)), f"{MODEL} is not what the manifest says"),
    "made on Windows": (_patch(_entry, 5, b"\0"), f"{MODEL} is not what the manifest says"),
    "overlapping entries": (_patch(_entry, 42, bytes(4)), f"{MODEL} is not what the manifest says"),
    "entry removed": (lambda a: a[: _entry(a, MODEL)] + a[_entry(a, "edge_latup/__init__.py") :], f"{MODEL} is not what"),
    "entry twice": (lambda a: a[: _directory(a)] + a[_directory(a) : -EOCD] + a[_directory(a) :], "bundle.zip is not what"),
    "bytes before the directory": (_inserted(_directory, b"hidden"), "manifest.json is not what the manifest says"),
    "bytes between members": (lambda a: _inserted(lambda b: _local(b, MODEL), b"hidden")(a), f"{MODEL} is missing"),
    "bytes behind the packed ones": (
        lambda a: _inserted(lambda b: _local(b, "edge_latup/__init__.py"), b"x")(a),
        "edge_latup/__init__.py is",
    ),
    "comment": (lambda a: a[:-2] + b"\4\0more", "bundle.zip is not what"),
    "comment without its length": (lambda a: a + b"more", "bundle.zip is not what"),
    "second end": (lambda a: a + a[-EOCD:], "bundle.zip is not what"),
    "count in the end": (lambda a: a[:-EOCD] + a[-EOCD:].replace(b"\x0e\0\x0e\0", b"\x0d\0\x0d\0"), "bundle.zip is not what"),
    "cut in the directory": (lambda a: a[: _entry(a, MODEL) + 9], f"{MODEL} is not what"),
    "no end": (lambda a: a[:-EOCD], "bundle.zip is not what"),
    "no directory": (lambda a: a[: _directory(a)], "manifest.json is not what"),
    "cut in a header": (lambda a: a[: _local(a, MODEL) + 9], f"{MODEL} is missing or cut"),
    "cut in a file": (lambda a: a[: _local(a, MODEL) + 90], f"{MODEL} is missing or cut"),
    "byte before": (lambda a: b"\0" + a, "bundle.zip is not a bundle"),
    "program before": (lambda a: b"#!/bin/sh\n" + a, "bundle.zip is not a bundle"),
    "zip before": (lambda a: a[:30] + a, "manifest.json "),
    "zip behind": (lambda a: a + a, "bundle.zip is not what"),
    "bomb": (_bomb, f"{MODEL} is longer than the {len(FILES[MODEL][0])} bytes"),
    "empty zip": (lambda _: zipfields.directory([], 0), "bundle.zip is not a bundle"),
    "magic only": (lambda a: a[:4], "manifest.json is missing or cut"),
    "written by another tool": (lambda a: _rezipped(a), "manifest.json has a zip header"),
}


def _rezipped(archive: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return out.getvalue()


@pytest.mark.parametrize("name", ZIP_TRICKS)
def test_tricks_of_zip_are_refused(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, name: str) -> None:
    change, why = ZIP_TRICKS[name]
    path, archive = tmp_path / "bundle.zip", archive_of("zip", good)
    assert change(archive) != archive
    path.write_bytes(change(archive))
    message = refused(path)
    assert message.startswith(why), message


def _consistent(members: list[Member], spoil: Callable[[bytes], bytes]) -> bytes:
    """A zip whose headers all agree, with the packed bytes of one file spoilt."""
    out, written = b"", []
    for m in members:
        encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
        stream = encoder.compress(m.content) + encoder.flush()
        stream = spoil(stream) if m.path == MODEL else stream
        written.append(
            zipfields.Member(
                path=f"{LABEL}/{m.path}", crc=zlib.crc32(m.content), packed=len(stream), size=len(m.content), offset=len(out),
                executable=m.executable,
            )
        )  # fmt: skip
        out += zipfields.local_header(written[-1]) + stream
    return out + zipfields.directory(written, len(out))


STREAMS: Final[dict[str, tuple[Change, str]]] = {
    "bytes behind": (lambda stream: stream + b"hidden", "has bytes behind its packed content"),
    "much behind": (lambda stream: stream + bytes(200), "has bytes behind its packed content"),
    "a second stream behind": (lambda stream: stream + b"\x03\0", "has bytes behind its packed content"),
    "cut": (lambda stream: stream[:-1], "its packed bytes end too early"),
    "empty": (lambda _: b"", "its packed bytes end too early"),
    "not DEFLATE": (lambda stream: b"\xff" * len(stream), "its packed bytes are damaged"),
    "less than promised": (lambda _: b"\x03\0", "CRC-32"),
    "padded with empty blocks": (lambda stream: b"\0\0\0\xff\xff" * 2000 + stream, "which 5120 bytes never do"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_packed_file_is_one_whole_stream(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, name: str) -> None:
    change, why = STREAMS[name]
    path = tmp_path / "bundle.zip"
    assert _consistent(good, lambda stream: stream) == archive_of("zip", good)
    path.write_bytes(_consistent(good, change))
    message = refused(path)
    assert message.startswith(f"{MODEL} ")
    assert why in message
