"""One checkpoint of width 8 and the artifacts made from it, once for all tests of the room. No test changes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import SIDE, write_checkpoint

from edge_latup.artifact import Artifact
from edge_latup.export.torch_onnx import export_onnx, export_reference
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import quantize


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Tiny tensors are computed faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="package")
def checkpoint(room: Path) -> Path:
    return write_checkpoint(room / "checkpoint")


@pytest.fixture(scope="package")
def static(checkpoint: Path, room: Path) -> Artifact:
    return export_onnx(checkpoint, room / "static")


@pytest.fixture(scope="package")
def dynamic(checkpoint: Path, room: Path) -> Artifact:
    return export_onnx(checkpoint, room / "dynamic", dynamic=True)


@pytest.fixture(scope="package")
def reference(checkpoint: Path, room: Path) -> Artifact:
    return export_reference(checkpoint, room / "reference")


@pytest.fixture(scope="package")
def quantized(static: Artifact, room: Path) -> dict[str, Artifact]:
    """Weights behind DequantizeLinear (ONNX), and behind NNCF's Convert and Multiply (OpenVINO IR)."""
    rng = np.random.default_rng(0)
    calibration = Calibration(inputs=(rng.random((1, 3, SIDE, SIDE, SIDE), dtype=np.float32),), cases=())
    return {
        "dynamic-range": quantize(static, "dynamic-range", room / "dynamic-range"),
        "int8": quantize(static, "int8", room / "int8", calibration=calibration),
    }
