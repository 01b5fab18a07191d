"""Audits of real artifacts on real runtimes: what is declared, what ran, and MACs that agree with an independent count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import CONVOLUTIONS, Compress, graph_of, pointwise_artifact, some_batch, tiny_spec
from unfused import quantize_inputs, unfused_int8

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.errors import ArtifactError
from edge_latup.export.cost import cost_of
from edge_latup.manifest import Manifest, Precision, RuntimeName
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import quantize
from edge_latup.runtimes import open_session
from edge_latup.runtimes.audit import Audit, shortfall
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.matching import audited
from edge_latup.runtimes.onnx_audit import declared_layers
from edge_latup.runtimes.onnxruntime_audit import executed_operations
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.spec import CentreCrop
from edge_latup.targets.diagnosis import diagnose

DENSE = 12
"""Dense layers of the tiny LATUP-Net's attention blocks."""
KERNELS = {"openvino": "I8", "onnxruntime": "QLinearConv"}


def audit_of(artifact: Artifact, runtime: RuntimeName, *, runs: int = 0, **options: object) -> Audit:
    with open_session(artifact, runtime, SessionOptions(threads=2, **options)) as session:  # type: ignore[arg-type]
        for _ in range(runs):
            session.infer(some_batch())
        return session.audit()


@pytest.fixture(scope="module")
def unfused(tiny_fp32: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return unfused_int8(tiny_fp32, tmp_path_factory.mktemp("unfused") / "unfused")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_float_layers_run_as_declared_and_cost_what_the_graph_says(tiny_fp32: Artifact, runtime: RuntimeName) -> None:
    made = audit_of(tiny_fp32, runtime)
    assert made.macs == cost_of(tiny_fp32.folder).macs
    assert len(made.layers) == CONVOLUTIONS + DENSE
    assert len({layer.name for layer in made.layers}) == len(made.layers)
    assert (made.summary.executed, made.summary.mismatches) == ({"fp32": 1.0}, ())
    assert all(layer.kernel for layer in made.layers)


def test_the_reference_declares_and_executes_fp32(tiny_reference: Artifact) -> None:
    made = audit_of(tiny_reference, "pytorch")
    assert made.macs == cost_of(tiny_reference.folder).macs
    assert {(layer.declared, layer.executed, layer.kernel) for layer in made.layers} == {("fp32", "fp32", "eager")}
    with open_session(tiny_reference, "pytorch") as session:
        before = session.infer(some_batch())
        session.audit()
        np.testing.assert_array_equal(session.infer(some_batch()), before)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_every_convolution_of_int8_runs_in_int8(compressed: Compress, runtime: RuntimeName) -> None:
    artifact = compressed("int8", runtime)
    made = audit_of(artifact, runtime)
    convolving = [layer for layer in made.layers if "Conv" in layer.operation]
    assert len(convolving) == CONVOLUTIONS
    assert {(layer.declared, layer.executed) for layer in convolving} == {("int8", "int8")}
    assert all(KERNELS[runtime] in str(layer.kernel) for layer in convolving)
    assert made.macs == cost_of(artifact.folder).macs
    assert made.summary.executed_int8 == made.summary.declared_int8 > 0.999
    assert shortfall(made.summary) is None


def test_the_manifest_of_what_was_quantized_keeps_the_audit(compressed: Compress, tiny_fp32: Artifact) -> None:
    kept = compressed("int8", "openvino").manifest.audit
    assert kept == audit_of(compressed("int8", "openvino"), "openvino").summary
    assert tiny_fp32.manifest.audit is None, "nothing was quantized"


def test_dynamic_int8_is_integer_by_its_operators(compressed: Compress) -> None:
    made = audit_of(compressed("dynamic-int8", "onnxruntime"), "onnxruntime")
    assert {(layer.declared, layer.executed) for layer in made.layers} == {("int8", "int8")}
    assert {layer.kernel for layer in made.layers} == {"ConvInteger", "com.microsoft.DynamicQuantizeMatMul"}


@pytest.mark.parametrize(("method", "runtime"), [("dynamic-range", "openvino"), ("dynamic-range", "onnxruntime"), ("fp16", "openvino")])
def test_weights_stored_small_declare_no_smaller_arithmetic(compressed: Compress, method: str, runtime: RuntimeName) -> None:
    summary = audit_of(compressed(method, runtime), runtime).summary
    assert (summary.declared_int8, summary.executed, summary.mismatches) == (0, {"fp32": 1.0}, ())


def test_bf16_that_runs_in_fp32_is_told(compressed: Compress) -> None:
    summary = audit_of(compressed("bf16", "openvino"), "openvino", float_precision="fp32").summary
    assert (summary.executed, summary.mismatched) == ({"fp32": 1.0}, 1.0)
    assert str(shortfall(summary)).startswith(f"executed fp32 100.0 % of MACs; {CONVOLUTIONS + DENSE} layers declared bf16 ran in fp32: ")


def test_a_float_part_in_bf16_is_declared_and_run(compressed: Compress) -> None:
    if "bf16" not in diagnose().openvino_precisions:
        pytest.skip("this CPU does not compute in bf16")
    assert audit_of(compressed("bf16", "openvino"), "openvino").summary.executed == {"bf16": 1.0}


def test_float_kernels_on_weights_stored_as_float16_compute_in_float32(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:  # fmt: skip
    """Of such a layer OpenVINO names the weights' type, "f16", and a kernel that ends in f32."""
    modules = ("encoder1", "encoder2", "encoder3", "decoder3", "decoder2", "decoder1", "output")
    made = quantize(tiny_fp32, "int8", tmp_path / "float", calibration=tiny_calibration, keep_float=modules)
    assert audit_of(made, "openvino").summary.executed == {"fp32": 1.0}


@pytest.mark.parametrize("floating", ["fp32", "bf16"])
def test_modules_left_in_float_are_declared_and_run_in_float(
    floating: Precision, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:  # fmt: skip
    if floating not in diagnose().openvino_precisions:
        pytest.skip(f"this CPU does not compute in {floating}")
    made = quantize(
        tiny_fp32, "int8", tmp_path / "mixed", calibration=tiny_calibration, keep_float=("decoder1",), float_precision=floating
    )  # fmt: skip
    audit = audit_of(made, "openvino")
    kept = [layer for layer in audit.layers if layer.name.startswith("decoder1.") or "Conv" not in layer.operation]
    assert {layer.operation for layer in kept} > {layer.operation for layer in audit.layers if "Conv" in layer.operation}
    assert {(layer.declared, layer.executed) for layer in kept} == {(floating, floating)}
    assert audit.summary.declared_int8 == pytest.approx(1 - sum(layer.macs for layer in kept) / audit.macs)
    assert audit.summary.executed == pytest.approx({"int8": audit.summary.declared_int8, floating: 1 - audit.summary.declared_int8})
    assert audit.summary == made.manifest.audit


def test_qdq_that_does_not_fuse_is_told(unfused: Artifact) -> None:
    """ONNX Runtime multiplies floats between the DequantizeLinear before and nothing behind; OpenVINO fuses the same file."""
    summary = audit_of(unfused, "onnxruntime").summary
    assert summary.declared_int8 > 0.999
    assert summary.executed_int8 == 0
    assert len(summary.mismatches) == CONVOLUTIONS
    assert f"{CONVOLUTIONS} layers declared int8 ran in fp32" in str(shortfall(summary))
    assert shortfall(audit_of(unfused, "openvino").summary) is None


@pytest.mark.parametrize(("method", "runtime"), [("int8", "openvino"), ("int8", "onnxruntime")])
def test_a_profile_shares_out_all_time(compressed: Compress, method: str, runtime: RuntimeName) -> None:
    made = audit_of(compressed(method, runtime), runtime, runs=3, profile=True)
    shares = [layer.time_share for layer in made.layers]
    assert all(share is not None and 0 <= share <= 1 for share in shares)
    assert made.other_time_share is not None
    assert sum(share or 0 for share in shares) + made.other_time_share == pytest.approx(1)
    assert 0 < made.other_time_share < 1
    assert made.milliseconds is not None
    assert made.milliseconds > 0


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_audit_may_be_repeated_and_inference_goes_on(tiny_fp32: Artifact, runtime: RuntimeName) -> None:
    with open_session(tiny_fp32, runtime, SessionOptions(threads=2, profile=True)) as session:
        before = session.infer(some_batch())
        first = session.audit()
        np.testing.assert_array_equal(session.infer(some_batch()), before)
        assert [layer.name for layer in session.audit().layers] == [layer.name for layer in first.layers]


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_where_the_size_is_free_the_specs_is_counted(runtime: RuntimeName, tmp_path: Path) -> None:
    made = audit_of(pointwise_artifact(tmp_path / "free"), runtime)
    assert made.input_shape == tiny_spec().input_shape == (1, 3, 16, 16, 16)
    assert [(layer.operation.startswith("Conv"), layer.macs) for layer in made.layers] == [(True, 3 * 4 * 16**3)]


@pytest.mark.parametrize("operation", ["Conv", "ConvTranspose"])
def test_a_grouped_or_transposed_convolution_is_counted_alike_everywhere(operation: str, tmp_path: Path) -> None:
    """By hand: 4 -> 4 channels in 2 groups of 2 -> 2, kernel 3^3; over 8^3 outputs, or over 8^3 inputs where transposed."""
    import onnx
    from onnx import helper

    weight = np.ones((4, 2, 3, 3, 3), np.float32)
    node = helper.make_node(operation, ["x", "w"], ["y"], name="c", group=2, pads=[1] * 6)
    spec = tiny_spec(network=None, modalities=("flair", "t1", "t1ce", "t2"), spatial=CentreCrop(size=(8, 8, 8)))
    fields = {
        "name": "grouped", "spec": spec, "format": "onnx", "runtimes": ("openvino", "onnxruntime"), "precision": "fp32",
        "storage": "float32", "input_shape": (1, 4, 8, 8, 8),
    }  # fmt: skip
    model = graph_of(node, weight, (1, 4, 8, 8, 8), 5)
    made = write_artifact(tmp_path / "grouped", Manifest.model_validate(fields), lambda out: onnx.save(model, out / "model.onnx"))
    audits = [audit_of(made, "openvino"), audit_of(made, "onnxruntime")]
    assert [audit.macs for audit in audits] == [2 * 2 * 2 * 27 * 8**3] * 2 == [cost_of(made.folder).macs] * 2
    assert all(layer.executed == "fp32" for audit in audits for layer in audit.layers)


def test_a_dense_layer_with_stored_int8_weights_computes_in_float(tmp_path: Path) -> None:
    """OpenVINO would round what it reads to 8 bits (1 % off here) whatever precision is pinned, and say the same of both."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weight, scale = rng.integers(-127, 128, (96, 64)).astype(np.int8), rng.random(64).astype(np.float32)
    shape = (1, 3, 8, 8, 96)
    model = graph_of(helper.make_node("MatMul", ["x", "dq"], ["y"], name="dense"), weight, shape, 5)
    model.graph.initializer.append(numpy_helper.from_array(scale, "s"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w", "s"], ["dq"], axis=1))
    fields = {
        "name": "dense", "spec": tiny_spec(network=None, spatial=CentreCrop(size=(8, 8, 96))), "format": "onnx", "runtimes": ("openvino",),
        "precision": "fp32", "storage": "int8", "input_shape": shape,
    }  # fmt: skip
    made = write_artifact(tmp_path / "dense", Manifest.model_validate(fields), lambda out: onnx.save(model, out / "model.onnx"))
    batch = rng.normal(size=shape).astype(np.float32)
    expected = batch.astype(np.float64) @ (weight * scale.astype(np.float64))
    with open_session(made, "openvino", SessionOptions(threads=2)) as session:
        np.testing.assert_allclose(session.infer(batch), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        (layer,) = session.audit().layers
    assert (layer.declared, layer.executed, layer.macs) == ("fp32", "fp32", 3 * 8 * 8 * 96 * 64)


def _two_dimensional(path: Path) -> Path:
    """Two plain 2-D convolutions without names; ONNX Runtime renames them and lays them out anew."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(16, 3, 3, 3)), "w2": rng.normal(size=(16, 16, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], pads=[1] * 4),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "two", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("broken", [False, True])
def test_layers_without_names_are_found_in_a_graph_that_was_laid_out_anew(broken: bool, tmp_path: Path) -> None:
    import onnx
    import onnxruntime as ort

    path, settings = _two_dimensional(tmp_path / "two.onnx"), ort.SessionOptions()
    if broken:
        model = onnx.load(path)
        quantize_inputs(model)
        onnx.save(model, path)
    settings.optimized_model_filepath, settings.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    declared = declared_layers(path, (1, 3, 32, 32), "fp32")
    made = audited("onnxruntime", (1, 3, 32, 32), declared, executed_operations(onnx.load(tmp_path / "optimised.onnx").graph))
    assert [layer.macs for layer in made.layers] == [27 * 16 * 32 * 32, 144 * 16 * 32 * 32]
    assert {(layer.declared, layer.executed) for layer in made.layers} == {("int8" if broken else "fp32", "fp32")}


@pytest.mark.parametrize(("known", "message"), [(True, "the shape of its tensor 'y' cannot be inferred"), (False, "No opset import")])
def test_shapes_that_cannot_be_inferred_are_an_error(known: bool, message: str, tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    model = graph_of(helper.make_node("Conv", ["z", "w"], ["y"]), np.ones((4, 3, 1, 1, 1), np.float32), (1, 3, 8, 8, 8), 5)
    model.graph.node.insert(0, helper.make_node("Unheard", ["x"], ["z"], domain="of"))
    model.opset_import.extend([helper.make_opsetid("of", 1)] if known else [])
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match=f"model.onnx cannot be audited: .*{message}") as caught:
        declared_layers(tmp_path / "model.onnx", (1, 3, 8, 8, 8), "fp32")
    assert caught.value.hint


def test_where_nothing_can_be_counted_there_is_no_summary_and_no_failure() -> None:
    class Unknown:
        def audit(self) -> Audit:
            raise ArtifactError("model.onnx cannot be audited")

    assert audit_summary(Unknown()) is None  # type: ignore[arg-type]
