"""Taps in pairs give the same integers; what would not gain by it, or not be the same, is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.grids import zero_aligned
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.paired_taps import pair_taps, paired_weights
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.openvino import import_openvino, openvino_core
from edge_latup.segmentation.parity import parity_input

AS_IT_IS: dict[str, Any] = {"channels": 8, "before": None, "strides": [1, 1, 1], "dilations": [1, 1, 1]}


def quantized(taps: tuple[int, ...], size: tuple[int, int, int] = (7, 6, 5), **changes: Any) -> Any:
    """What reads one quantized tensor: a convolution of 8-bit weights for each number of taps; the sum of whole levels is exact in FP32."""
    from openvino import opset13 as ops

    given_ = AS_IT_IS | changes
    rng = np.random.default_rng(5)
    image = ops.parameter([1, given_["channels"], *size], np.float32)
    low, high = zero_aligned(-0.7, 1.9)
    values = ops.fake_quantize(image, *(np.float32(limit) for limit in (low, high, low, high)), 256)
    results = []
    for number in taps:
        stored = rng.integers(-127, 128, (4, given_["channels"], number, 3, 3), np.int8)
        scale = rng.uniform(0.001, 0.01, (4, 1, 1, 1, 1)).astype(np.float32)
        weights = ops.multiply(ops.convert(ops.constant(stored), "f32"), ops.constant(scale))
        before = (number - 1) // 2 if given_["before"] is None else given_["before"]
        pads = [before, 1, 1], [number - 1 - before, 1, 1]
        results.append(ops.result(ops.convolution(values, weights, given_["strides"], *pads, given_["dilations"])))
    return import_openvino().Model(results, [image], "convolutions")


def run(model: Any, image: np.ndarray) -> list[np.ndarray]:
    ov = import_openvino()
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32})
    return [np.array(values) for values in compiled([image]).values()]


@settings(max_examples=12)
@given(st.sampled_from([(5,), (3, 5), (5, 6, 4), (7, 3)]), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 2))
def test_the_result_is_the_same(taps: tuple[int, ...], size: tuple[int, int, int], before: int) -> None:
    model = quantized(taps, size, before=None if before == 0 else before)
    paired = model.clone()
    assert len(pair_taps(paired)) == len(taps)
    image = np.random.default_rng(1).uniform(-1, 2.5, (1, 8, *size)).astype(np.float32)
    for found, expected in zip(run(paired, image), run(model, image), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())
        assert found.shape == expected.shape


def test_weights_lie_side_by_side() -> None:
    weights = np.arange(2 * 1 * 5).reshape(2, 1, 5, 1, 1)
    assert paired_weights(weights)[0, :, :, 0, 0].tolist() == [[0, 2, 4], [1, 3, 0]]
    assert paired_weights(weights[:, :, :4])[1, :, :, 0, 0].tolist() == [[5, 7], [6, 8]]


@pytest.mark.parametrize(
    "changes",
    [{"taps": (3,)}, {"taps": (5,), "channels": 33}, {"taps": (5,), "strides": [2, 1, 1]}, {"taps": (5,), "dilations": [2, 1, 1]},
     {"taps": (5,), "before": 0}, {"taps": (1,)}],
)  # fmt: skip
def test_what_does_not_gain_is_left_alone(changes: dict[str, Any]) -> None:
    model = quantized(size=(9, 8, 8), **changes)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert pair_taps(model) == ()
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_an_artifact_is_made_with_pairs_and_says_so(
    tiny_fp32: Artifact, tiny_calibration: Calibration, compressed: Compress, tmp_path: Path
) -> None:
    made = quantize(tiny_fp32, "int8", tmp_path / "paired", calibration=tiny_calibration, paired=True)
    plain = quantize(tiny_fp32, "int8", tmp_path / "plain", calibration=tiny_calibration)
    assert made.manifest.recipe[-1].parameters["paired"] is True
    assert plain.manifest.recipe[-1].parameters["paired"] is False
    spec = made.manifest.spec
    batch = parity_input(spec, spec.spatial.size)
    outputs = []
    for artifact in (made, plain):
        with open_session(artifact, "openvino", SessionOptions()) as session:
            outputs.append(session.infer(batch))
            assert len(session.input_shape) == 5
    # What a level is rounded to may differ where a value lies on the edge between two.
    assert np.abs(outputs[0] - outputs[1]).mean() < 1e-3
    kinds = [{node.get_type_name() for node in openvino_core().read_model(one.model_path).get_ordered_ops()} for one in (made, plain)]
    assert ("Pad" in kinds[0], "Pad" in kinds[1]) == (True, False)
    assert made.manifest.audit is not None
    assert plain.manifest.audit is not None
    assert made.manifest.audit.executed_int8 == pytest.approx(plain.manifest.audit.executed_int8, abs=0.05)


def test_other_methods_have_no_pairs(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only int8 for OpenVINO pairs taps"):
        quantize(tiny_fp32, "bf16", tmp_path / "out", paired=True)
    with pytest.raises(InputError, match="only int8 for OpenVINO pairs taps"):
        quantize(tiny_fp32, "int8", tmp_path / "out", runtime="onnxruntime", calibration=tiny_calibration, paired=True)
    assert not (tmp_path / "out").exists()
