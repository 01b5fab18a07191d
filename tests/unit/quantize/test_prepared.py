"""One look at the calibration inputs serves every runtime: equal outputs, ranges that are the tensors' own, bounded memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_graphs import model_of

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.quantize import prepared as module
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import estimated
from edge_latup.quantize.grids import zero_aligned
from edge_latup.quantize.histograms import histogram_of
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.prepared import activations, looker, prepare
from edge_latup.quantize.ranges import look
from edge_latup.quantize.static_int8 import openvino_int8
from edge_latup.quantize.weights import SMALLEST
from edge_latup.runtimes.openvino import import_openvino, openvino_core


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.random((1, 3, 16, 16, 16), dtype=np.float32) * scale for scale in (1, 2, 4)]


def infer(path: Path, image: np.ndarray) -> np.ndarray:
    ov = import_openvino()
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32})
    return np.array(compiled([image])[0])


def test_the_file_to_quantize_computes_what_its_source_does(tiny_fp32: Artifact, images: list[np.ndarray]) -> None:
    with prepare(tiny_fp32.model_path, images) as prepared:
        assert prepared.equalised_channels > 0
        np.testing.assert_allclose(infer(prepared.path, images[0]), infer(tiny_fp32.model_path, images[0]), atol=1e-6)
    assert not prepared.path.exists()
    with prepare(tiny_fp32.model_path, images, equalised=False) as plain:
        assert plain.equalised_channels == 0
        np.testing.assert_array_equal(infer(plain.path, images[0]), infer(tiny_fp32.model_path, images[0]))


def test_openvino_looks_where_it_is_known_to_compute_the_network(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    others = tiny_fp32.manifest.model_copy(update={"runtimes": ("onnxruntime",)})
    assert looker(tiny_fp32) == "openvino"
    assert looker(replace(tiny_fp32, manifest=others)) == "onnxruntime", "an import found that OpenVINO computes something else"
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert looker(tiny_fp32) == "onnxruntime"
    monkeypatch.undo()
    monkeypatch.setattr("edge_latup.runtimes.openvino.installed", lambda _: False)
    assert looker(tiny_fp32) == "onnxruntime"


def test_both_runtimes_find_the_same_ranges(tiny_fp32: Artifact, images: list[np.ndarray]) -> None:
    with prepare(tiny_fp32.model_path, images) as one, prepare(tiny_fp32.model_path, images, runtime="openvino") as other:
        assert one.known.keys() == other.known.keys()
        for name, ends in one.known.items():
            np.testing.assert_allclose(other.known[name], ends, rtol=1e-3, atol=1e-5)


def test_ranges_are_those_of_the_file_to_quantize(tiny_fp32: Artifact, images: list[np.ndarray]) -> None:
    """They are not measured in it, but in its source, and divided by what its channels were divided by."""
    with prepare(tiny_fp32.model_path, images) as prepared:
        tensors = activations(onnx.load(tiny_fp32.model_path).graph)
        own = look(prepared.path, tensors, images).ranges
        for name in tensors:
            expected = own[name][:, 0].min(axis=1).mean(), own[name][:, 1].max(axis=1).mean()
            np.testing.assert_allclose(prepared.known[name], expected, rtol=1e-4, atol=1e-6)
        assert prepared.ranges_of(["image"]) == {"image": prepared.known["image"]}
        unforeseen = next(node.output[0] for node in onnx.load(prepared.path).graph.node if node.op_type == "Resize")
        known = {name: value for name, value in prepared.known.items() if name != unforeseen}
        other = replace(prepared, known=known)
        np.testing.assert_allclose(other.ranges_of([unforeseen])[unforeseen], prepared.known[unforeseen], rtol=1e-4)


def test_an_exact_rewrite_is_not_looked_at_again(
    tiny_fp32: Artifact, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that kept their names hold what they held; only a rewrite that widens them is not the same network."""
    rewritten = quantize(tiny_fp32, "rewrite", tmp_path / "rewritten")
    with prepare(tiny_fp32.model_path, images) as prepared, prepare(rewritten.model_path, images) as anew:
        monkeypatch.setattr(module, "look", lambda *_, **__: pytest.fail("looked again"))
        with prepare(rewritten.model_path, images, like=prepared) as again:
            assert again.known.keys() == anew.known.keys()
            for name, expected in anew.known.items():
                np.testing.assert_allclose(again.known[name], expected, rtol=1e-3, atol=1e-5)
        narrow = replace(prepared, found={name: found[:, :, :-1] for name, found in prepared.found.items()})
        with pytest.raises(InputError, match="channels, its ranges are of"), prepare(rewritten.model_path, images, like=narrow):
            pass


def test_what_was_prepared_for_another_artifact_is_refused(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(tiny_fp32.model_path.read_bytes())
    with prepare(copy, tiny_calibration.inputs) as prepared, pytest.raises(InputError, match="was prepared, not"):
        quantize(tiny_fp32, "int8", tmp_path / "out", calibration=tiny_calibration, prepared=prepared)
    assert not (tmp_path / "out").exists()


def test_every_quantizer_has_the_range_of_its_tensor(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    with prepare(tiny_fp32.model_path, tiny_calibration.inputs) as prepared:
        made = quantize(tiny_fp32, "int8", tmp_path / "int8", calibration=tiny_calibration, prepared=prepared)
        nodes = openvino_core().read_model(made.model_path).get_ordered_ops()
        found = 0
        for node in nodes:
            source = node.input_value(0) if node.get_type_name() == "FakeQuantize" else None
            if source is None or source.get_node().get_type_name() == "Constant":
                continue
            known = [prepared.known[name] for name in source.get_names() if name in prepared.known]
            low, high = (float(node.input_value(index).get_node().get_data().ravel()[0]) for index in (1, 2))
            for expected in known:
                # Those that meet in a concat share the widest of their ranges; zero is a level.
                step = (high - low) / 255
                assert low <= expected[0] + step
                assert high >= expected[1] - step
                found += 1
            assert abs(low / ((high - low) / 255) - round(low / ((high - low) / 255))) < 1e-3
    assert found >= 15
    assert made.manifest.recipe[-1].parameters["ranges"] == "mean min-max"


QUANTIZER = "FakeQuantize"
NOT_QUANTIZED = "{node} reads 8 bits, though attention and norms are said to stay float"


def test_attention_and_norms_stay_float(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    made = quantize(tiny_fp32, "int8", tmp_path / "int8", calibration=tiny_calibration)
    for node in openvino_core().read_model(made.model_path).get_ordered_ops():
        if node.get_type_name() in ("MVN", "ReduceMean", "MatMul", "Sigmoid"):
            assert node.input_value(0).get_node().get_type_name() != "FakeQuantize", NOT_QUANTIZED.format(node=node.get_friendly_name())


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_zero_is_a_level_of_every_range(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assume(high - low > 1e-3)
    start, end = zero_aligned(low, high)
    step = (end - start) / 255
    assert start <= 0 <= end
    assert abs(start / step - round(start / step)) < 1e-6
    assert start - step <= min(low, 0) <= start + step
    assert end - step <= max(high, 0) <= end + step


CALIBRATE = """
import resource, sys
from pathlib import Path
import numpy as np
from edge_latup.quantize.prepared import prepare
from edge_latup.quantize.static_int8 import openvino_int8
images = [np.random.default_rng(seed).random((1, 3, 128, 128, 128), dtype=np.float32) for seed in range(16)]
with prepare(Path(sys.argv[1]), images) as prepared:
    openvino_int8(Path(sys.argv[2]), prepared, preset="mixed")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_sixteen_full_crops_are_calibrated_in_three_gigabytes(tmp_path: Path) -> None:
    from edge_latup.bench.demo import demo_checkpoint
    from edge_latup.export.torch_onnx import export_onnx

    fp32 = export_onnx(demo_checkpoint(), tmp_path / "fp32")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", CALIBRATE, str(fp32.model_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 3e9


def test_before_layers_left_in_float_nothing_is_rounded(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    """With every convolution left in float, what remains of INT8 is nothing: up-sampling alone needs no 8 bits."""
    modules = ("encoder1", "encoder2", "encoder3", "decoder3", "decoder2", "decoder1", "output")
    made = quantize(tiny_fp32, "int8", tmp_path / "float", calibration=tiny_calibration, keep_float=modules)
    nodes = openvino_core().read_model(made.model_path).get_ordered_ops()
    assert not [node for node in nodes if node.get_type_name() == QUANTIZER]
    # What is in 8 bits is their weights, as in dynamic-range; equalised for channels, they reach wider and round coarser.
    weights = [node for node in nodes if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 5]
    assert {str(node.get_element_type()) for node in weights if node.get_data().size >= SMALLEST} == {"<Type: 'int8_t'>"}
    portable = quantize(tiny_fp32, "dynamic-range", tmp_path / "dynamic-range")
    assert made.manifest.parity[-1].relative_l2 < 2 * portable.manifest.parity[-1].relative_l2


def test_a_convolution_is_named_as_in_the_file(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    """Exporters that name nodes like paths too: `/encoder/conv/Conv`."""
    model = onnx.load(tiny_fp32.model_path)
    for node in model.graph.node:
        node.name = f"/{node.name.replace('.', '/')}/{node.op_type}"
    path = tmp_path / "paths.onnx"
    onnx.save(model, path)
    with prepare(path, tiny_calibration.inputs) as prepared:
        openvino_int8(tmp_path, prepared, preset="mixed", keep_float=["/output/Conv", "/decoder1"])
        with pytest.raises(InputError, match="no convolution belongs to 'output'") as refused:
            openvino_int8(tmp_path, prepared, preset="mixed", keep_float=["output"])
    assert "/output/Conv" in refused.value.hint


@pytest.mark.parametrize("estimator", ["mean min-max", "min-max", "percentile 99.999", "kl"])
def test_a_tensor_that_only_openvinos_graph_has_is_given_its_range_in_the_same_way(
    estimator: str, images: list[np.ndarray], tmp_path: Path
) -> None:
    """A norm whose scale went into the next weights: what is quantized has no name in ONNX."""
    weight = np.random.default_rng(0).normal(size=(8, 3, 1, 1, 1))
    constants = {"w": weight, "s": np.linspace(1, 3, 8), "t": np.zeros(8), "v": np.ones((8, 8, 3, 3, 3))}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"]),
        onnx.helper.make_node("InstanceNormalization", ["a", "s", "t"], ["n"]),
        onnx.helper.make_node("Conv", ["n", "v"], ["y"], pads=[1] * 6),
    ]
    model = model_of(nodes, {name: values.astype(np.float32) for name, values in constants.items()}, [1, 3, 16, 16, 16])
    onnx.save(model, tmp_path / "norm.onnx")
    with prepare(tmp_path / "norm.onnx", images, equalised=False, estimator=estimator) as prepared:
        openvino_int8(tmp_path, prepared, preset="mixed")
    found = quantized_ranges(tmp_path / "model.xml")
    raw = [np.einsum("oi,nidhw->nodhw", weight[:, :, 0, 0, 0], image) for image in images]
    plain = [(one - one.mean(axis=(2, 3, 4), keepdims=True)) / one.std(axis=(2, 3, 4), keepdims=True) for one in raw]
    scaled = [one * constants["s"].reshape(1, -1, 1, 1, 1) for one in plain]
    expected = [range_by(estimator, [one.astype(np.float32) for one in seen]) for seen in (plain, scaled)]
    assert any(np.allclose(range_, either, atol=0.02 * (either[1] - either[0])) for range_ in found for either in expected)


def range_by(estimator: str, seen: list[np.ndarray]) -> tuple[float, float]:
    ends = np.array([[[one.min()], [one.max()]] for one in seen], np.float64)
    histogram = histogram_of(seen, float(np.abs(ends).max()))
    return estimated(estimator, {"x": ends}, {"x": histogram})["x"]


def quantized_ranges(path: Path) -> list[tuple[float, float]]:
    """Of every activation's quantizer."""
    nodes = [node for node in openvino_core().read_model(path).get_ordered_ops() if node.get_type_name() == QUANTIZER]
    limits = [[float(node.input_value(index).get_node().get_data().ravel()[0]) for index in (1, 2)] for node in nodes]
    return [(low, high) for low, high in limits]
