"""Damage to a MetaImage, most of which SimpleITK takes without a word: refused by name, and no file but its own is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from support import intensities

from edge_latup.cases.layout import find_cases
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError

FLAIR = "VSD.Brain.XX.O.MR_Flair.54512.mha"


def write_meta(path: Path, *, packed: bool = True) -> Path:
    """`intensities(0)` in a MetaImage of array axes L, P, S and 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ascontiguousarray(intensities(0).T)), str(path), useCompression=packed)
    return path


def _text(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        text, mark, voxels = content.partition(b"ElementDataFile = LOCAL\n")
        assert old.encode() in text + mark
        return (text + mark).replace(old.encode(), new.encode()) + voxels

    return change


def _flipped(content: bytes) -> bytes:
    return content[:-30] + bytes([content[-30] ^ 4]) + content[-29:]


MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no bytes": (lambda _: b"", "is not a MetaImage file"),
    "another format": (lambda _: b"DICM" * 900, "is not a MetaImage file"),
    "cut inside the header": (lambda b: b[:90], "is not a MetaImage file, or is damaged or cut"),
    "cut inside the voxels": (lambda b: b[: len(b) // 2], "is truncated"),
    "one flipped bit": (_flipped, "is truncated or damaged"),
    "a line twice": (_text("DimSize = 16 18 20\n", "DimSize = 16 18 20\nDimSize = 16 18 20\n"), "is not a MetaImage file, or is damaged"),
    "claims more than it holds": (_text("16 18 20", "16 18 21"), "is truncated: 11520 bytes of 12096"),
    "claims what no stream holds": (_text("16 18 20", "9999 9999 9999"), "packed bytes cannot hold"),
    "claims less than it holds": (_text("16 18 20", "16 18 2"), "goes on after the 1152 bytes"),
    "claims a shorter stream": (lambda b: _text(f"Size = {_packed(b)}", f"Size = {_packed(b) - 50}")(b), "is truncated or damaged"),
    "claims a longer stream": (lambda b: _text(f"Size = {_packed(b)}", "Size = 99999")(b), "packed bytes of 99999"),
    "claims a stream of nothing": (lambda b: _text(f"Size = {_packed(b)}", "Size = -1")(b), "its header says -1"),
    "zero size": (_text("16 18 20", "16 0 20"), "is empty: its shape is (16, 0, 20)"),
    "negative size": (_text("16 18 20", "16 -18 20"), "is empty: its shape is (16, -18, 20)"),
    "two sizes": (_text("16 18 20", "16 18"), "has a MetaImage header that cannot be read"),
    "no size": (_text("DimSize = 16 18 20\n", ""), "has a MetaImage header that cannot be read"),
    "two dimensions": (_text("NDims = 3", "NDims = 2"), "says NDims = 2; only 3 is read"),
    "voxels as text": (_text("BinaryData = True", "BinaryData = False"), "says BinaryData = False; only True is read"),
    "colours": (_text("NDims = 3", "NDims = 3\nElementNumberOfChannels = 3"), "says ElementNumberOfChannels = 3; only 1 is read"),
    "a header to skip": (_text("NDims = 3", "NDims = 3\nHeaderSize = -1"), "says HeaderSize = -1; only 0 is read"),
    "unknown data type": (_text("MET_SHORT", "MET_OTHER"), "has a MetaImage header that cannot be read ('MET_OTHER')"),
    "no direction": (_text(MATRIX, ""), "has no TransformMatrix: which side is left is unknown"),
    "singular matrix": (_text(MATRIX, "TransformMatrix = 1 0 0 1 0 0 0 0 1\n"), "has an affine that gives no orientation"),
    "half a matrix": (_text(MATRIX, "TransformMatrix = 1 0 0 0\n"), "has "),
    "words for numbers": (_text("ElementSpacing = 1 1 1", "ElementSpacing = a b c"), "has a MetaImage header that cannot be read"),
    "not finite": (_text("ElementSpacing = 1 1 1", "ElementSpacing = 1 nan 1"), "its geometry is not finite"),
    "no spacing": (_text("ElementSpacing = 1 1 1\n", ""), "has no ElementSpacing"),
    "spacing of nothing": (_text("ElementSpacing = 1 1 1", "ElementSpacing = 1 1 0"), "has an affine that gives no orientation"),
}  # fmt: skip


def _packed(content: bytes) -> int:
    return int(content.partition(b"CompressedDataSize = ")[2].split()[0])


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_refused_by_name_with_a_remedy(tmp_path: Path, name: str) -> None:
    path = write_meta(tmp_path / "case" / FLAIR)
    change, part = BROKEN[name]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CaseError) as caught:
        read_case(find_cases(path.parent)[0], ("flair",))
    assert part in caught.value.message
    assert caught.value.message.startswith(str(path))
    assert caught.value.hint


@pytest.mark.parametrize(
    "named",
    [
        "../secret.raw", "/etc/hostname", "sub/exam.raw", "..\\secret.raw", "", ".", "..", "LIST", "LIST 2", "exam%03d.raw 1 20 1",
        "C:\\secret.raw", "\0",
    ],
)  # fmt: skip
def test_a_header_opens_no_file_but_one_beside_it(tmp_path: Path, named: str) -> None:
    path = write_meta(tmp_path / "case" / "exam.mhd", packed=False)
    (tmp_path / "secret.raw").write_bytes((tmp_path / "case" / "exam.raw").read_bytes())
    path.write_text(path.read_text(encoding="ascii").replace("= exam.raw", f"= {named}"), encoding="ascii")
    with pytest.raises(CaseError, match="which is not the name of one file beside it") as caught:
        open_volume(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_data_file_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    path = write_meta(tmp_path / "exam.mhd", packed=False)
    (tmp_path / "exam.raw").write_bytes(bytes(100))
    with pytest.raises(CaseError, match=r"exam\.raw is truncated: 100 bytes of 11520"):
        open_volume(path)
    (tmp_path / "exam.raw").unlink()
    with pytest.raises(CaseError, match=r"exam\.raw does not exist"):
        open_volume(path)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 330), st.integers(0, 255)), min_size=1, max_size=3))
def test_any_damage_to_a_header_is_read_or_refused_but_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = write_meta(tmp_path_factory.getbasetemp() / "damage-meta" / FLAIR)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    with contextlib.suppress(CaseError):
        assert np.isfinite(open_volume(path).values(None)).all()
