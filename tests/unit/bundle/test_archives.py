"""What only an archive can be falsified with: second meanings, tricks of the formats, bombs. Each is refused and named."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from bundles import FILES, LABEL, TODAY, WHEEL, Member, archive_of, packed, tar_of, unpacked, watched, write_form

from edge_latup.bundle import ustar, zipfields
from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.unpack import unpack_verified
from edge_latup.bundle.verify import verify
from edge_latup.bundle.zstd import zstd_module
from edge_latup.errors import VerificationError

Change = Callable[[bytes], bytes]
MODEL: Final = "artifact/model.onnx"


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
def test_every_other_tool_reads_the_same(good: list[Member], form: str) -> None:
    """Python's own readers as the independent reference."""
    archive, expected = archive_of(form, good), {f"{LABEL}/{m.path}": (m.content, m.executable) for m in good}
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            assert file.testzip() is None
            found = {i.filename: (file.read(i), bool(i.external_attr >> 16 & 0o111)) for i in file.infolist()}
    else:
        with tarfile.open(fileobj=io.BytesIO(unpacked(archive))) as tar:
            assert unpacked(archive) == tar_of(good)  # what the other tests pack
            found = {i.name: (tar.extractfile(i).read(), bool(i.mode & 0o111)) for i in tar if i.isreg()}  # type: ignore[union-attr]
    assert found == expected


def _at(path: str) -> Callable[[bytes], int]:
    """Where the header of a member begins."""
    return lambda tar: tar.index(ustar.header(f"{LABEL}/{path}", len(FILES[path][0]), executable=FILES[path][1]))


def _field(path: str, *fields: int | bytes) -> Change:
    """Fields of a tar header (offset, value, offset, value ...), with a checksum that fits."""

    def change(tar: bytes) -> bytes:
        start = _at(path)(tar)
        block = bytearray(tar[start : start + 512])
        for at, value in zip(fields[::2], fields[1::2], strict=True):
            block[at : at + len(value)] = value  # type: ignore[operator,arg-type,misc]
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return tar[:start] + bytes(block) + tar[start + 512 :]

    return change


def _before(path: str, inserted: bytes) -> Change:
    return lambda tar: tar[: _at(path)(tar)] + inserted + tar[_at(path)(tar) :]


def _extended(kind: bytes, content: bytes) -> bytes:
    """A member of a special kind, such as a pax header, by Python's tarfile."""
    info = tarfile.TarInfo("././@LongLink" if kind in b"LK" else "pax")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def _link(kind: bytes, to: bytes) -> Change:
    return _field("install.sh", 156, kind, 157, to)


def _traversal(name: bytes) -> Change:
    return _field("install.sh", 0, name + b"\0")


TAR_TRICKS: Final[dict[str, tuple[Change, str]]] = {
    "symbolic link": (_link(b"2", b"/etc/passwd"), "install.sh is not a plain file"),
    "hard link": (_link(b"1", b"../../outside"), "install.sh is not a plain file"),
    "character device": (_link(b"3", b""), "install.sh is not a plain file"),
    "block device": (_link(b"4", b""), "install.sh is not a plain file"),
    "FIFO": (_link(b"6", b""), "install.sh is not a plain file"),
    "folder": (_link(b"5", b""), "install.sh is not a plain file"),
    "GNU sparse file": (_link(b"S", b""), "install.sh is not a plain file"),
    "old plain type": (_field("install.sh", 156, b"\0"), "install.sh is not a plain file"),
    "GNU long name": (_before("install.sh", _extended(b"L", b"../../evil\0")), "././@LongLink was added"),
    "GNU long link": (_before("install.sh", _extended(b"K", b"../../evil\0")), "././@LongLink was added"),
    "pax path override": (_before("install.sh", _extended(b"x", b"19 path=../../evil\n")), "pax was added"),
    "pax size override": (_before("install.sh", _extended(b"x", b"12 size=999\n")), "pax was added"),
    "pax link override": (_before("install.sh", _extended(b"x", b"18 linkpath=/etc/a\n")), "pax was added"),
    "pax global header": (_before("install.sh", _extended(b"g", b"19 path=../../evil\n")), "pax was added"),
    "own pax record altered": (
        lambda tar: tar.replace(f"path={LABEL}/wheels/long-".encode(), f"path={LABEL}/wheels/../x-".encode()),
        WHEEL,
    ),
    "parent folder": (_traversal(b"../evil"), "../evil was added"),
    "parent folder inside": (_traversal(f"{LABEL}/../../evil".encode()), "../../evil was added"),
    "absolute": (_traversal(b"/etc/cron.d/evil"), "/etc/cron.d/evil was added"),
    "drive letter": (_traversal(b"C:\\evil"), "C:\\\\evil was added"),
    "name after a NUL": (_field("install.sh", len(f"{LABEL}/install.sh"), b"\0../../evil"), "install.sh has a tar header"),
    "not ASCII": (_traversal("r\u00e9".encode()), "r\\\\xc3\\\\xa9 was added"),
    "prefix field": (_field("install.sh", 345, b"../../evil"), "install.sh has a tar header"),
    "set-user-id": (_field("install.sh", 100, b"0004755\0"), "install.sh has other permissions"),
    "size in base 256": (_field("install.sh", 124, b"\x80" + bytes(10) + b"\x10"), "install.sh was altered: None bytes"),
    "huge size": (_field("install.sh", 124, b"77777777777\0"), "install.sh was altered: 8589934591 bytes"),
    "smaller size": (_field("install.sh", 124, b"00000000001\0"), "install.sh was altered: 1 bytes"),
    "owner": (_field("install.sh", 108, b"0001750\0"), "install.sh has a tar header"),
    "user's name": (_field("install.sh", 265, b"root"), "install.sh has a tar header"),
    "time": (_field("install.sh", 136, b"14000000000\0"), "install.sh has a tar header"),
    "checksum": (lambda tar: tar[: _at("empty")(tar) + 148] + b"000000\0 " + tar[_at("empty")(tar) + 156 :], "empty has a tar header"),
    "padding": (lambda tar: tar.replace(b"IT department.\n\0", b"IT department.\n!"), "README.txt is followed by something"),
    "one block of the end": (lambda tar: tar[:-512], "bundle.tar.zst is missing or cut"),
    "no end": (lambda tar: tar[:-1024], "bundle.tar.zst is missing or cut"),
    "more zeros": (lambda tar: tar + bytes(512), "bundle.tar.zst goes on after its last file"),
    "a tar behind the tar": (lambda tar: tar + tar, "bundle.tar.zst goes on after its last file"),
    "a megabyte of something behind": (lambda tar: tar + b"x" * (1 << 20), "bundle.tar.zst goes on after its last file"),
    "nothing": (lambda _: b"", "manifest.json is missing or cut"),
    "zeros only": (lambda tar: bytes(len(tar)), "manifest.json is missing, or not in its place"),
    "signature first": (lambda tar: tar[tar.index(f"{LABEL}/manifest.sig".encode()) :], "manifest.json is missing, or not in its place"),
}


@pytest.mark.parametrize("name", TAR_TRICKS)
def test_tricks_of_tar_are_refused(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, name: str) -> None:
    change, why = TAR_TRICKS[name]
    path, tar = tmp_path / "bundle.tar.zst", tar_of(good)
    assert change(tar) != tar
    path.write_bytes(packed(change(tar)))
    message = refused(path)
    assert message.startswith(why), message


def _skippable(size: int = 40) -> bytes:
    return struct.pack("<II", 0x184D2A50, size) + bytes(size)


def _empty_blocks(count: int) -> Change:
    """The frame, with raw blocks of no bytes behind its header (one byte of descriptor, one of window)."""
    return lambda archive: archive[:6] + b"\0\0\0" * count + archive[6:]


def _far_window(archive: bytes) -> bytes:
    """Streamed, so that the frame's header asks for all of the window, however little is in it."""
    zstd = zstd_module()
    encoder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    content: bytes = encoder.compress(unpacked(archive)) + encoder.flush()
    return content


FRAMES: Final[dict[str, tuple[Change, str]]] = {
    "byte appended": (lambda a: a + b"\0", "has something appended"),
    "skippable frame appended": (lambda a: a + _skippable(), "has something appended"),
    "frame appended": (lambda a: a + packed(b"more"), "has something appended"),
    "zip appended": (lambda a: a + b"PK\x05\x06" + bytes(18), "has something appended"),
    "skippable frame before": (lambda a: _skippable() + a, "is not a bundle"),
    "byte before": (lambda a: b"\0" + a, "is not a bundle"),
    "empty": (lambda _: b"", "is not a bundle"),
    "magic only": (lambda a: a[:4], "is truncated"),
    "half": (lambda a: a[: len(a) // 2], "is truncated"),
    "without its last byte": (lambda a: a[:-1], "is truncated"),
    "without its checksum": (lambda a: a[:-4], "is truncated"),
    "another checksum": (lambda a: a[:-1] + bytes([a[-1] ^ 1]), "is damaged"),
    "a window of 128 MiB": (_far_window, "is damaged"),
    "a million empty blocks": (_empty_blocks(1 << 20), "padded with empty blocks"),
    "gzip": (lambda a: zlib.compress(unpacked(a), wbits=31), "is not a bundle"),
    "bare tar": (unpacked, "is not a bundle"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_tricks_of_zstandard_are_refused(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, name: str) -> None:
    change, why = FRAMES[name]
    path = tmp_path / "bundle.tar.zst"
    path.write_bytes(change(packed(tar_of(good))))
    message = refused(path)
    assert why in message
    assert "bundle.tar.zst" in message


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


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
@pytest.mark.parametrize(
    ("name", "why"),
    [("twice", "install.sh is in the archive twice"), ("at the end again", "install.sh is in the archive twice"),
     ("in another order", "install.ps1 is missing, or not in its place"), ("in another folder", "was renamed: its folder is not")],
)  # fmt: skip
def test_members_have_one_place(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, form: str, name: str, why: str) -> None:
    at = next(index for index, member in enumerate(good) if member.path == "install.sh")
    members = {
        "twice": [*good[: at + 1], good[at], *good[at + 1 :]],
        "at the end again": [*good, good[at]],
        "in another order": [*good[: at - 1], good[at], good[at - 1], *good[at + 1 :]],
        "in another folder": good,
    }[name]
    label = "latup" if name == "in another folder" else LABEL
    assert why in refused(write_form(form, members, tmp_path, label))


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
def test_no_prefix_of_an_archive_is_accepted_or_written(good: list[Member], key: SigningKey, tmp_path: Path, form: str) -> None:
    archive = archive_of(form, good)
    path = tmp_path / "bundle"
    for size in [*range(0, len(archive), 211), *range(len(archive) - 60, len(archive))]:
        path.write_bytes(archive[:size])
        with watched(path) as deeds, pytest.raises(VerificationError):
            unpack_verified(path, key.public, tmp_path / "out", today=TODAY)
        assert deeds.wrote == []
    path.write_bytes(archive)
    assert verify(path, key.public, today=TODAY).digest
