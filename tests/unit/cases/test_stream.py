"""Memory on hostile files: no more of a file is unpacked than its header promises, and no header is believed beyond its file."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import AFFINE, intensities, write_nifti

from edge_latup.cases.nifti import open_volume
from edge_latup.cases.stream import DEFLATE_RATIO, TRAILING_BYTES, Inflated, unpacked
from edge_latup.errors import CaseError

MIB = 2**20
MANY = 256
"""MiB behind a valid volume, or promised by a header."""
ALLOWED_MIB = 48
"""Growth that is no more than working space. The volumes are of kilobytes, and what is refused is MANY MiB."""
READ_IN_A_PROCESS_OF_ITS_OWN = """
import json, sys
from pathlib import Path
import SimpleITK
from edge_latup.cases.nifti import open_volume
from edge_latup.errors import CaseError

def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before, message, hint = peak_kib(), "", ""
try:
    open_volume(Path(sys.argv[1]))
except CaseError as error:
    message, hint = error.message, error.hint
json.dump({"message": message, "hint": hint, "grown_mib": (peak_kib() - before) / 1024}, sys.stdout)
"""


def header_of(shape: tuple[int, ...], kind: type[np.generic] = np.uint8) -> bytes:
    """A NIfTI-1 header for `shape`, and the four bytes that say that no extension follows."""
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_sform(AFFINE, code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1\0"
    return bytes(header.binaryblock) + bytes(4)


def zeros(path: Path, count: int, window: int, before: bytes = b"") -> Path:
    """`before` and `count` MiB of zeros, packed piece by piece so that the test itself stays small."""
    packer = zlib.compressobj(1, zlib.DEFLATED, window)
    with path.open("ab") as file:
        file.write(packer.compress(before))
        for _ in range(count):
            file.write(packer.compress(bytes(MIB)))
        file.write(packer.flush())
    return path


def bomb_in_one_member(folder: Path) -> Path:
    return zeros(folder / "exam.nii.gz", MANY, 31, header_of((20, 20, 20)) + bytes(8000))


def bomb_in_a_second_member(folder: Path) -> Path:
    return zeros(write_nifti(folder / "exam.nii.gz", intensities(0)), MANY, 31)


def bomb_before_the_voxels(folder: Path) -> Path:
    head = bytearray(header_of((20, 20, 20)))
    head[108:112] = np.float32(MANY * MIB).tobytes()
    return zeros(folder / "exam.nii.gz", MANY + 64, 31, bytes(head))


def promise_within_what_deflate_can_do(folder: Path) -> Path:
    noise = np.random.default_rng(0).bytes(MIB)
    (folder / "exam.nii.gz").write_bytes(gzip.compress(header_of((1024, 1024, MANY)) + noise))
    return folder / "exam.nii.gz"


def promise_beyond_what_deflate_can_do(folder: Path) -> Path:
    (folder / "exam.nii.gz").write_bytes(gzip.compress(header_of((1024, 1024, MANY)) + bytes(9)))
    return folder / "exam.nii.gz"


def short_plain_file(folder: Path) -> Path:
    (folder / "exam.nii").write_bytes(header_of((1024, 1024, MANY)) + bytes(8000))
    return folder / "exam.nii"


def long_plain_file(folder: Path) -> Path:
    with (folder / "exam.nii").open("wb") as file:
        file.write(header_of((20, 20, 20)))
        file.truncate(MANY * MIB)  # a hole: it takes no room on the disk
    return folder / "exam.nii"


def cut_gzip(folder: Path) -> Path:
    path = zeros(folder / "exam.nii.gz", 2, 31, header_of((1024, 1024, 2)) + np.random.default_rng(0).bytes(MIB))
    path.write_bytes(path.read_bytes()[:-900_000])
    return path


def bomb_in_a_metaimage(folder: Path) -> Path:
    text = "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    text += "ElementSpacing = 1 1 1\nDimSize = 20 20 20\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (folder / "exam.mha").write_text(text, encoding="ascii")
    return zeros(folder / "exam.mha", MANY, zlib.MAX_WBITS)


HOSTILE: dict[Callable[[Path], Path], str] = {
    bomb_in_one_member: "goes on after the 8352 bytes that its header promises",
    bomb_in_a_second_member: "goes on after the 11872 bytes that its header promises",
    bomb_before_the_voxels: "goes on after the",
    promise_within_what_deflate_can_do: "is truncated: 1048928 bytes of 268435808",
    promise_beyond_what_deflate_can_do: "packed bytes cannot hold the 268435808 that its header promises",
    short_plain_file: "is truncated: 8352 bytes of 268435808",
    long_plain_file: "goes on after the 8352 bytes that its header promises",
    cut_gzip: "is truncated or damaged (Compressed file ended before the end-of-stream marker",
    bomb_in_a_metaimage: "goes on after the 8000 bytes that its header promises",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_refused_by_name_and_takes_no_memory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    command = [sys.executable, "-P", "-c", READ_IN_A_PROCESS_OF_ITS_OWN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert HOSTILE[make] in report["message"]
    assert report["message"].startswith(str(path))
    assert report["hint"]
    assert report["grown_mib"] < ALLOWED_MIB


@pytest.mark.parametrize(
    ("shape", "kind", "what"),
    [
        ((1024, 1024, 513), np.uint8, "one volume as float32 takes 2.0 GiB, the limit is 2 GiB"),
        ((1024, 1024, 500, 5), np.float32, "the file unpacked takes 9.8 GiB, the limit is 8 GiB"),
    ],
)
def test_a_volume_no_exam_needs_is_refused(tmp_path: Path, shape: tuple[int, ...], kind: type[np.generic], what: str) -> None:
    path = tmp_path / "exam.nii"
    with path.open("wb") as file:
        file.write(header_of(shape, kind))
        file.truncate(352 + int(np.prod(shape)) * np.dtype(kind).itemsize)  # a hole: it takes no room on the disk
    with pytest.raises(CaseError, match="is too large") as caught:
        open_volume(path)
    assert what in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("padding", "refused"), [(1, False), (TRAILING_BYTES, False), (TRAILING_BYTES + 1, True)])
def test_padding_to_whole_blocks_is_accepted_and_no_more(tmp_path: Path, suffix: str, padding: int, refused: bool) -> None:
    content = write_nifti(tmp_path / "whole.nii", intensities(0)).read_bytes() + bytes(padding)
    path = tmp_path / f"exam{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    if refused:
        with pytest.raises(CaseError, match="goes on after the 11872 bytes"):
            open_volume(path)
    else:
        np.testing.assert_array_equal(open_volume(path).values(None), intensities(0))


def test_a_flipped_bit_in_the_padding_is_noticed(tmp_path: Path) -> None:
    """The checksum stands behind everything, and is looked at."""
    content = write_nifti(tmp_path / "whole.nii", intensities(0)).read_bytes() + bytes(100)
    stored = bytearray(gzip.compress(content, compresslevel=0))
    stored[-20] ^= 1
    (tmp_path / "exam.nii.gz").write_bytes(stored)
    with pytest.raises(CaseError, match="CRC check failed"):
        open_volume(tmp_path / "exam.nii.gz")


@given(st.integers(1, 6), st.data())
def test_gzip_members_are_one_stream_wherever_it_is_cut(tmp_path_factory: pytest.TempPathFactory, parts: int, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "members.nii.gz"
    content = write_nifti(tmp_path_factory.getbasetemp() / "whole.nii", intensities(0)).read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), min_size=parts, max_size=parts)))
    pieces = [content[first:last] for first, last in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    path.write_bytes(b"".join(gzip.compress(piece) for piece in pieces))
    np.testing.assert_array_equal(open_volume(path).values(None), intensities(0))


def test_deflate_gives_no_more_than_its_ratio() -> None:
    packed = len(zlib.compress(bytes(64 * MIB), 9))
    assert 0.99 * DEFLATE_RATIO < 64 * MIB / packed < DEFLATE_RATIO


@given(st.binary(max_size=3000), st.integers(1, 700), st.integers(0, 20))
def test_a_zlib_stream_comes_out_whole_in_any_pieces_and_its_end_is_found(content: bytes, size: int, trailing: int) -> None:
    packed = zlib.compress(content)
    stream = Inflated(io.BufferedReader(io.BytesIO(packed + bytes(trailing))), len(packed) + trailing)  # type: ignore[arg-type]
    pieces = []
    while got := stream.read(size):
        pieces.append(got)
    assert b"".join(pieces) == content


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_cut_or_altered_zlib_stream_is_noticed(content: bytes, data: st.DataObject) -> None:
    packed = bytearray(zlib.compress(content))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    else:
        packed[-1] ^= 1  # in the checksum
    with pytest.raises((EOFError, zlib.error)):
        io.BufferedReader(Inflated(io.BufferedReader(io.BytesIO(packed)), len(packed))).read()  # type: ignore[arg-type]


def test_a_stream_is_seen_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"text")
    (tmp_path / "packed").write_bytes(gzip.compress(b"text"))
    for name, ratio in (("plain", 1), ("packed", DEFLATE_RATIO)):
        with unpacked(tmp_path / name) as stream:
            assert (stream.ratio, stream.stored) == (ratio, (tmp_path / name).stat().st_size)
            assert stream.block(0, 4).tobytes() == b"text"
