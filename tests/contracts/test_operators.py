"""Every operator that segmentation networks are made of, in every runtime: FP32 as PyTorch computes it, INT8 near it, or refused.

What a runtime cannot do stands in `CANNOT`, with the message that users get; docs/networks.md repeats it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from operator_networks import OPERATORS, SIDE, network_of

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.cases.phantom import make_phantom
from edge_latup.errors import EdgeLatupError
from edge_latup.manifest import Manifest, RuntimeName, SeenCase
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import METHODS, quantize
from edge_latup.runtimes import open_session
from edge_latup.segmentation import parity
from edge_latup.spec import MODALITIES, CentreCrop, ModelSpec

SPEC = ModelSpec(name="operator", modalities=MODALITIES, spatial=CentreCrop(size=(SIDE, SIDE, SIDE)), normalisation="z_score_nonzero")
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
FP32_TOLERANCE = 2e-5
"""Of a probability: only the order of sums differs."""
WAYS: dict[tuple[str, RuntimeName], float] = {
    ("int8", "openvino"): 0.05, ("int8", "onnxruntime"): 0.05, ("dynamic-int8", "onnxruntime"): 0.06, ("bf16", "openvino"): 0.03,
    ("dynamic-range", "onnxruntime"): 0.01,
}  # fmt: skip
"""Relative L2 error of the probabilities after a method: of static INT8, two or three convolutions with steps of 1/255 of a range."""
INTEGER = ("int8", "dynamic-int8")
OFTEN = ("conv 3 dilated 2", "conv 3 grouped", "conv 2 padded after", "conv 3 strided, transposed 2", "attention gate", "cbam",
         "transformer u-net")  # fmt: skip
"""What is compressed in every run of the tests; the others, and the other methods, in the slow ones."""
FEW_CHANNELS = "no convolution can be quantized for TensorRT"
CANNOT: dict[tuple[str, str, RuntimeName], str] = {
    ("conv 3 grouped", "int8", "tensorrt"): FEW_CHANNELS,
    ("conv 3 depthwise", "int8", "tensorrt"): FEW_CHANNELS,
    ("transposed grouped", "int8", "tensorrt"): FEW_CHANNELS,
    ("conv 3", "bf16", "onnxruntime"): "bf16 makes nothing for onnxruntime",
    ("conv 3", "bf16", "tensorrt"): "bf16 makes nothing for tensorrt",
    ("conv 3", "dynamic-int8", "openvino"): "dynamic-int8 makes nothing for openvino",
    ("conv 3", "dynamic-range", "tensorrt"): "dynamic-range makes nothing for tensorrt",
}
"""(operator, method, runtime) that is refused, and how the message begins. Methods are refused whatever the operator."""


@pytest.fixture(scope="module", autouse=True)
def _small_phantom() -> Iterator[None]:
    """What a method is run on once is a phantom of the BraTS size; a small one is drawn faster."""
    with pytest.MonkeyPatch.context() as patch:
        shape = (40, 36, 32)
        patch.setattr(parity, "BRATS_SHAPE", shape)
        patch.setattr(parity, "make_phantom", lambda seed, index: make_phantom(seed, index, shape=shape))
        parity._parity_input.cache_clear()
        yield
        parity._parity_input.cache_clear()


def batch_of(seed: int) -> np.ndarray:
    """A smooth volume with some noise, float32 (1, 4, 16, 16, 16)."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((1, 4, *[SIDE // 4] * 3), dtype=np.float32)
    fine = coarse.repeat(4, 2).repeat(4, 3).repeat(4, 4)
    return fine + 0.3 * rng.standard_normal(fine.shape, dtype=np.float32)


def _write(name: str) -> Callable[[Path], None]:
    from edge_latup.export.torch_onnx import OPSET, _quiet_exporter

    def write(folder: Path) -> None:
        with warnings.catch_warnings(), _quiet_exporter():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network_of(name), (torch.zeros(SPEC.input_shape),), str(folder / "model.onnx"), dynamo=True, opset_version=OPSET,
                external_data=False, verbose=False, input_names=["image"], output_names=["probabilities"], optimize=True,
            )  # fmt: skip

    return write


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    folder = tmp_path_factory.mktemp("operators")

    @functools.cache
    def make(name: str) -> Artifact:
        fields: dict[str, Any] = {
            "name": "operator", "spec": SPEC, "format": "onnx", "runtimes": RUNTIMES, "precision": "fp32", "storage": "float32",
            "input_shape": SPEC.input_shape,
        }  # fmt: skip
        return write_artifact(folder / str(list(OPERATORS).index(name)), Manifest.model_validate(fields), _write(name))

    return make


def expected_of(name: str, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output: np.ndarray = network_of(name)(torch.from_numpy(batch)).numpy()
    return output


def compressed(artifact: Artifact, out: Path, method: str, runtime: RuntimeName) -> Artifact:
    calibration = Calibration(inputs=(batch_of(0), batch_of(1)), cases=(SeenCase(name="case", sha256="a" * 64),))
    return quantize(artifact, method, out, runtime=runtime, calibration=calibration if METHODS[method].needs_calibration else None)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float32_is_what_pytorch_computes(exported: Callable[[str], Artifact], runtime: RuntimeName, name: str) -> None:
    batch = batch_of(0)
    expected = expected_of(name, batch)
    assert len(np.unique(expected.argmax(1))) == 4
    with open_session(exported(name), runtime) as session:
        np.testing.assert_allclose(session.infer(batch), expected, rtol=0, atol=FP32_TOLERANCE)


def _marked(name: str, method: str) -> Any:
    return () if name in OFTEN and method == "int8" else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "method", "runtime"), [pytest.param(name, *way, marks=_marked(name, way[0])) for name in OPERATORS for way in WAYS]
)
def test_compressed_it_computes_nearly_the_same(
    exported: Callable[[str], Artifact], tmp_path: Path, name: str, method: str, runtime: RuntimeName
) -> None:
    batch = batch_of(0)
    with open_session(compressed(exported(name), tmp_path / "made", method, runtime), runtime) as session:
        found, precisions = session.infer(batch), {kernel.precision for kernel in session.executed_kernels()}
    expected = expected_of(name, batch)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < WAYS[method, runtime]
    assert method not in INTEGER or {"i8", "u8"} & precisions, "nothing was computed in integers"


@pytest.mark.parametrize(("name", "method", "runtime"), CANNOT)
def test_what_a_runtime_cannot_do_is_told(
    exported: Callable[[str], Artifact], tmp_path: Path, name: str, method: str, runtime: RuntimeName
) -> None:
    with pytest.raises(EdgeLatupError) as caught:
        compressed(exported(name), tmp_path / "made", method, runtime)
    assert caught.value.message.startswith(CANNOT[name, method, runtime])
    assert caught.value.hint
    assert not (tmp_path / "made").exists()
