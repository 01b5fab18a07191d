"""Parity: how far a model is from what its reference computes, on one real-sized input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.cohort import brats_grid
from edge_latup.cases.phantom import make_phantom
from edge_latup.cases.phantom.anatomy import BRATS_SHAPE
from edge_latup.cases.read import Case
from edge_latup.errors import ArtifactError
from edge_latup.manifest import Parity
from edge_latup.segmentation.prepare import crop_input
from edge_latup.spec import REGION_THRESHOLD, ModelSpec, Size

EXPORT_TOLERANCE: Final = {"max_abs": 1e-3, "relative_l2": 1e-4, "argmax_agreement": 0.9999}
"""The graph against PyTorch, both FP32, in a runtime that sums carefully (ONNX Runtime). Two correct programs differ by the
order of their sums (demo network at 128^3, in its manifest: relative L2 9.6e-6); a wrong padding or axis differs by 1e-1."""
RUNTIME_TOLERANCE: Final = {"max_abs": 2e-2, "relative_l2": 2e-3, "argmax_agreement": 0.999}
"""The same graph in OpenVINO, FP32 pinned: it differs more, presumably in
its means over two million voxels (demo network at 128^3, in its manifest: relative L2 3.4e-4, same class 0.99995)."""


INPUT: Final = "crop of phantom seed 0 case 0"


def parity_input(spec: ModelSpec, size: Size) -> NDArray[np.float32]:
    """(1, C, *size): the crop of a phantom of the BraTS size, normalised as the spec says; the same every time."""
    return _parity_input(spec, size).copy()


@lru_cache(maxsize=1)
def _parity_input(spec: ModelSpec, size: Size) -> NDArray[np.float32]:
    """Kept, because drawing the phantom takes seconds and one process often makes several artifacts of one spec."""
    phantom = make_phantom(0, 0)
    grid = brats_grid(BRATS_SHAPE)
    images = {modality: phantom.images[modality] for modality in spec.modalities}
    case = Case(name="parity", images=images, label=None, grid=grid, convention="brats-2023")
    image, _ = crop_input(case, spec, size)
    batch: NDArray[np.float32] = image[None]
    return batch


def _decided(output: NDArray[np.float32], regions: bool) -> NDArray[np.generic]:
    """What each voxel is given: its likeliest class (N, D, H, W), or which regions it belongs to (N, D, H, W, regions)."""
    return np.moveaxis(output > REGION_THRESHOLD, 1, -1) if regions else output.argmax(1)


def compare(reference: NDArray[np.float32], candidate: NDArray[np.float32], *, regions: bool = False) -> dict[str, float]:
    """max_abs, relative_l2 and argmax_agreement of two (N, classes, D, H, W) outputs.

    With `regions`, whose channels may overlap, agreement is the share of voxels that belong to the same ones.

    Raises:
        ArtifactError: the shapes differ, or one holds NaN or infinity.
    """
    if reference.shape != candidate.shape:
        raise ArtifactError(f"output shapes differ: reference {reference.shape}, candidate {candidate.shape}", "this model cannot be used")
    for name, output in (("reference", reference), ("candidate", candidate)):
        if not np.isfinite(output).all():
            raise ArtifactError(f"the {name}'s output holds NaN or infinity", "this model cannot be used")
    difference = candidate.astype(np.float64) - reference
    same = _decided(reference, regions) == _decided(candidate, regions)
    return {
        "max_abs": float(np.abs(difference).max()),
        "relative_l2": float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64))),
        "argmax_agreement": float(np.mean(same.all(-1) if regions else same)),
    }


def check(figures: dict[str, float], tolerance: dict[str, float]) -> list[str]:
    """The figures that break their bound, in words; empty when all hold. Agreement has a lower bound, the others an upper one."""
    broken = []
    for name, bound in tolerance.items():
        value = figures[name]
        if (value < bound) if name == "argmax_agreement" else (value > bound):
            broken.append(f"{name} {value:.6g} (bound {bound:g})")
    return broken


def prove(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], names: tuple[str, str], tolerance: dict[str, float],
    *, input_shape: Sequence[int], regions: bool = False,
) -> Parity:  # fmt: skip
    """Compare two outputs and apply `tolerance`; `names` are those of the reference and the candidate, `regions` as in `compare`.

    `input_shape` is that of what both were given.

    Raises:
        ArtifactError: a bound is broken; the message has the figures.
    """
    figures = compare(reference, candidate, regions=regions)
    if broken := check(figures, tolerance):
        raise ArtifactError(
            f"{names[1]} does not compute what {names[0]} computes: {', '.join(broken)}",
            "nothing was written; report this network",
        )
    shape = tuple(int(size) for size in input_shape)
    return Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=shape, tolerance=tolerance, **figures)
