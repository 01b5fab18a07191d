"""Tricks of tar and Zstandard: second meanings, overrides, bombs. Each is refused and named."""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from bundles import LABEL, WHEEL, Member, packed, tar_of, unpacked

from edge_latup.bundle import zstd
from edge_latup.bundle.zstd import zstd_module

Change = Callable[[bytes], bytes]


def _at(path: str) -> Callable[[bytes], int]:
    """Where the header of a member with a short name begins."""
    return lambda tar: tar.index(f"{LABEL}/{path}\0".encode())


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
    "manifest as a link": (_field("manifest.json", 156, b"2", 157, b"/etc/passwd"), "manifest.json has a tar header"),
    "manifest executable": (_field("manifest.json", 100, b"0000755\0"), "manifest.json has a tar header"),
    "manifest of an unwritten size": (_field("manifest.json", 124, b" 2000\0"), "manifest.json has a tar header"),
    "signature with an owner": (_field("manifest.sig", 108, b"0001750\0"), "manifest.sig has a tar header"),
    "signature of a gigabyte": (_field("manifest.sig", 124, b"10000000000\0"), "manifest.sig is larger than"),
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
    module = zstd_module()
    encoder = module.ZstdCompressor(options={module.CompressionParameter.window_log: 27})
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


def test_what_is_appended_is_found_where_a_block_ends_with_the_frame(
    good: list[Member], refused: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, path = packed(tar_of(good)), tmp_path / "bundle.tar.zst"
    path.write_bytes(archive + b"more")
    for size in (len(archive), len(archive) + 1, 1):
        monkeypatch.setattr(zstd, "CHUNK", size)
        assert "has something appended" in refused(path)
