"""Tiny cases on disk, whole and broken, and a way to see that nothing was written."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

SHAPE: Final = (16, 18, 20)
AFFINE: Final = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 17], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The BraTS geometry on SHAPE: array axes L, P, S."""
NAMES_2021: Final = {"flair": "_flair", "t1ce": "_t1ce", "t2": "_t2", "t1": "_t1", "label": "_seg"}
NAMES_2023: Final = {"flair": "-t2f", "t1ce": "-t1c", "t2": "-t2w", "t1": "-t1n", "label": "-seg"}


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write `array` as it is (its dtype too) and return the path; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def intensities(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """int16 intensities from 0 to 999, different for each seed."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def canonical_label(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """uint8 label map with a block of each canonical class, not symmetric in any axis."""
    label = np.zeros(shape, np.uint8)
    label[2:9, 3:8, 4:12] = 2
    label[3:8, 4:7, 5:10] = 3
    label[4:6, 5:6, 6:8] = 1
    return label


def write_case(folder: Path, names: dict[str, str] = NAMES_2021, *, suffix: str = ".nii.gz", affine: np.ndarray = AFFINE) -> Path:
    """Write a case folder with the files `names` asks for; image number k is `intensities(k)`. Labels are canonical numbers."""
    for seed, (key, ending) in enumerate(names.items()):
        array = canonical_label() if key == "label" else intensities(seed)
        write_nifti(folder / f"{folder.name}{ending}{suffix}", array, affine)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder under `folder` with its time of change and its bytes: equal before and after means nothing was written."""
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in folder.rglob("*")}


def _file(folder: Path, key: str) -> Path:
    return folder / f"{folder.name}{NAMES_2021[key]}.nii.gz"


def _without(key: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_case(folder)
        _file(folder, key).unlink()

    return make


def _with_array(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """A case in which one volume is `change` of what it should be."""

    def make(folder: Path) -> None:
        write_case(folder)
        array = canonical_label() if key == "label" else intensities(0).astype(np.float32)
        write_nifti(_file(folder, key), change(array))

    return make


def _with_voxel(key: str, value: float) -> Callable[[Path], None]:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.astype(np.float32)
        changed[5, 6, 7] = value
        return changed

    return _with_array(key, change)


def _with_affine(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_case(folder)
        write_nifti(_file(folder, key), canonical_label() if key == "label" else intensities(0), change(AFFINE.copy()))

    return make


def _with_bytes(key: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_case(folder)
        _file(folder, key).write_bytes(change(_file(folder, key).read_bytes()))

    return make


def _with_header(key: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A case in which the header of one file is changed after nibabel wrote it, past nibabel's own checks."""

    def edit(content: bytes) -> bytes:
        plain = bytearray(gzip.decompress(content))
        header = nib.Nifti1Header(bytes(plain[:348]), check=False)
        change(header)
        plain[:348] = header.binaryblock
        return gzip.compress(bytes(plain))

    return _with_bytes(key, edit)


def _stretched(affine: np.ndarray) -> np.ndarray:
    affine[2, 2] *= 1.009  # no entry moves by 0.01, the far slice by 0.17 mm
    return affine


def _shifted(affine: np.ndarray) -> np.ndarray:
    affine[0, 3] += 1
    return affine


def _flipped_bit(content: bytes) -> bytes:
    """The last stored byte of the voxels changed; the deflate stream stays decodable, only the checksum tells."""
    plain = gzip.decompress(content)
    stored = bytearray(gzip.compress(plain, compresslevel=0))
    stored[-9] ^= 1
    return bytes(stored)


def _zipped_part(part: slice) -> Callable[[bytes], bytes]:
    return lambda content: gzip.compress(gzip.decompress(content)[part])


def _twice(array: np.ndarray) -> np.ndarray:
    return np.stack([array, array], axis=-1)


def _second_candidate(folder: Path) -> None:
    write_case(folder)
    write_nifti(folder / "other_t2.nii", intensities(9))


def _no_direction(header: Any) -> None:
    header["srow_x"] = header["srow_y"]


def _coinciding_axes(header: Any) -> None:
    header["srow_x"], header["srow_y"] = [-1, 1, 0, 0], [1, -1, 0, 0]


def _no_codes(header: Any) -> None:
    header["qform_code"] = header["sform_code"] = 0


def _no_voxels(header: Any) -> None:
    header["dim"][2] = 0


def _huge(header: Any) -> None:
    header["dim"][1:4] = 32767


def _colours(header: Any) -> None:
    header["datatype"], header["bitpix"] = 128, 24


def _other_type(header: Any) -> None:
    header["datatype"] = 12345


def _fewer_slices(header: Any) -> None:
    header["dim"][3] = 10


def _no_slice_but_one(header: Any) -> None:
    header["dim"][3] = 1


def _more_slices(header: Any) -> None:
    header["dim"][3] = 21


def _late_voxels(header: Any) -> None:
    header["vox_offset"] = 100_000


BROKEN_IMAGES: Final[dict[str, tuple[Callable[[Path], Any], str]]] = {
    "missing modality": (_without("t1ce"), "no t1ce volume"),
    "two candidates": (_second_candidate, "two candidates for t2"),
    "shapes disagree": (_with_array("t2", lambda a: a[:, :, :-1]), "shapes disagree: case_flair.nii.gz is"),
    "affines disagree": (_with_affine("t2", _shifted), "a voxel lies 1 mm apart in case_flair.nii.gz and"),
    "spacings disagree": (_with_affine("t2", _stretched), "a voxel lies 0.171 mm apart in case_flair.nii.gz and"),
    "not a number": (_with_voxel("t1ce", np.nan), "case_t1ce.nii.gz (t1ce) holds 1 voxels that are NaN or infinite"),
    "infinite": (_with_voxel("flair", np.inf), "case_flair.nii.gz (flair) holds 1 voxels that are NaN or infinite"),
    "empty volume": (_with_array("t1ce", np.zeros_like), "case_t1ce.nii.gz (t1ce) is empty: every voxel is 0"),
    "constant volume": (_with_array("flair", lambda a: np.full_like(a, 7)), "case_flair.nii.gz (flair) is empty: every voxel is 7"),
    "zero size": (_with_header("t2", _no_voxels), "case_t2.nii.gz is empty: its shape is (16, 0, 20)"),
    "two dimensions": (_with_array("t2", lambda a: a[0]), "case_t2.nii.gz has 2 dimensions (18, 20), expected 3"),
    "four dimensions": (_with_array("t2", _twice), "case_t2.nii.gz has 4 dimensions (16, 18, 20, 2), expected 3"),
    "colours": (_with_header("t2", _colours), "case_t2.nii.gz holds"),
    "unknown data type": (_with_header("t2", _other_type), "case_t2.nii.gz has a NIfTI header that cannot be read"),
    "claims more than it holds": (_with_header("t2", _huge), "case_t2.nii.gz is truncated"),
    "claims one slice more": (_with_header("t2", _more_slices), "case_t2.nii.gz is truncated: 11872 bytes of 12448"),
    "claims fewer slices": (_with_header("t2", _fewer_slices), "case_t2.nii.gz goes on after the 6112 bytes that its header promises"),
    "voxels after the end": (_with_header("t2", _late_voxels), "case_t2.nii.gz is truncated: 11872 bytes of 111520"),
    "a second exam behind the first": (_with_bytes("t2", lambda b: b + b), "case_t2.nii.gz goes on after the 11872 bytes"),
    "something behind the exam": (_with_bytes("t2", lambda b: b + b"PK"), "case_t2.nii.gz is truncated or damaged (Not a gzipped file"),
    "cut in half": (_with_bytes("t2", lambda b: b[: len(b) // 2]), "case_t2.nii.gz is truncated or damaged"),
    "cut inside the header": (_with_bytes("t2", lambda b: b[:60]), "case_t2.nii.gz is truncated or damaged"),
    "cut inside the header, then zipped": (_with_bytes("t2", _zipped_part(slice(200))), "case_t2.nii.gz is not a NIfTI file, or is cut"),
    "cut inside the voxels, then zipped": (_with_bytes("t2", _zipped_part(slice(-9))), "case_t2.nii.gz is truncated"),
    "one flipped bit": (_with_bytes("flair", _flipped_bit), "case_flair.nii.gz is truncated or damaged (CRC check failed"),
    "no bytes": (_with_bytes("flair", lambda _: b""), "case_flair.nii.gz is not a NIfTI file"),
    "not NIfTI": (_with_bytes("flair", lambda _: b"DICM" * 200), "case_flair.nii.gz is not a NIfTI file"),
    "singular affine": (_with_header("flair", _no_direction), "case_flair.nii.gz has an affine that gives no orientation"),
    "two axes in one direction": (_with_header("flair", _coinciding_axes), "case_flair.nii.gz has an affine that gives no orientation"),
    "no geometry": (_with_header("flair", _no_codes), "case_flair.nii.gz has neither qform nor sform"),
}  # fmt: skip
BROKEN_LABELS: Final[dict[str, tuple[Callable[[Path], Any], str]]] = {
    "unknown label": (_with_voxel("label", 7), "case_seg.nii.gz holds label values [7.0]"),
    "negative label": (_with_voxel("label", -1), "case_seg.nii.gz holds label values [-1.0]"),
    "label between two": (_with_voxel("label", 2.5), "case_seg.nii.gz holds label values [2.5]"),
    "label not a number": (_with_voxel("label", np.nan), "case_seg.nii.gz (label) holds 1 voxels that are NaN or infinite"),
    "label on another shape": (_with_array("label", lambda a: a[1:]), "case_seg.nii.gz is (15, 18, 20)"),
    "label on another affine": (_with_affine("label", _shifted), "a voxel lies 1 mm apart in case_flair.nii.gz and"),
    "label cut in half": (_with_bytes("label", lambda b: b[: len(b) // 2]), "case_seg.nii.gz is truncated or damaged"),
    "label that claims fewer slices": (_with_header("label", _no_slice_but_one), "case_seg.nii.gz goes on after"),
    "label in four dimensions": (_with_array("label", _twice), "case_seg.nii.gz has 4 dimensions"),
}
BROKEN_CASES: Final = BROKEN_IMAGES | BROKEN_LABELS
"""Name to (makes the broken case in a folder named "case", part of the message expected), for the modalities flair, t1ce and t2."""


def die(*_: object) -> None:
    """End this process as a kernel that is out of memory does; it is here so that a process of its own can import it."""
    os.kill(os.getpid(), signal.SIGKILL)
