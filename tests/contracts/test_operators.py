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
from edge_latup.quantize.methods import quantize
from edge_latup.runtimes import open_session
from edge_latup.segmentation import parity
from edge_latup.spec import MODALITIES, CentreCrop, ModelSpec

SPEC = ModelSpec(name="operator", modalities=MODALITIES, spatial=CentreCrop(size=(SIDE, SIDE, SIDE)), normalisation="z_score_nonzero")
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
FP32_TOLERANCE = 2e-5
"""Of a probability: only the order of sums differs."""
INT8_TOLERANCE = 0.05
"""Relative L2 error of the probabilities: two or three quantized convolutions, each with a step of 1/255 of its range."""
CANNOT: dict[tuple[str, str], str] = {}
"""(operator, "RUNTIME METHOD"): how the message begins that says so."""


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


def refused(name: str, way: str, act: Callable[[], object]) -> bool:
    """Whether the table says that a runtime cannot do it; then the message must be the one that stands there."""
    if (name, way) not in CANNOT:
        return False
    with pytest.raises(EdgeLatupError) as caught:
        act()
    assert caught.value.message.startswith(CANNOT[name, way])
    assert caught.value.hint
    return True


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float32_is_what_pytorch_computes(exported: Callable[[str], Artifact], runtime: RuntimeName, name: str) -> None:
    artifact, batch = exported(name), batch_of(0)

    def act() -> np.ndarray:
        with open_session(artifact, runtime) as session:
            return session.infer(batch)

    if not refused(name, f"{runtime} fp32", act):
        expected = expected_of(name, batch)
        assert len(np.unique(expected.argmax(1))) == 4
        np.testing.assert_allclose(act(), expected, rtol=0, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_is_near_float32(exported: Callable[[str], Artifact], tmp_path: Path, runtime: RuntimeName, name: str) -> None:
    calibration = Calibration(inputs=(batch_of(0), batch_of(1)), cases=(SeenCase(name="case", sha256="a" * 64),))

    def act() -> Artifact:
        return quantize(exported(name), "int8", tmp_path / "int8", runtime=runtime, calibration=calibration)

    if not refused(name, f"{runtime} int8", act):
        batch = batch_of(0)
        with open_session(act(), runtime) as session:
            found, precisions = session.infer(batch), {kernel.precision for kernel in session.executed_kernels()}
        expected = expected_of(name, batch)
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < INT8_TOLERANCE
        assert {"i8", "u8"} & precisions, "nothing was computed in integers"


def test_the_table_names_operators_that_are_tested() -> None:
    assert {name for name, _ in CANNOT} <= set(OPERATORS)
