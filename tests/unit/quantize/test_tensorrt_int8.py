"""The TensorRT artifact: small, by the rules, and honest that its numerics were simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_models import Compress
from unet_graph import image_of, outputs_of, unet_graph

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.quantize import every_runtime, methods
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.every_runtime import quantize_for_all
from edge_latup.quantize.explicit_qdq import insert_qdq, plan_int8
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.tensorrt_int8 import simulate, type_float16
from edge_latup.quantize.tensorrt_rules import check_file, check_model, errors_of
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import parity_input

INT8_TOLERANCE = 0.35
"""As in test_methods.py: on random weights only rough agreement can be asked for."""


def test_the_file_is_small_and_keeps_the_rules(compressed: Compress, tiny_fp32: Artifact) -> None:
    made = open_artifact(compressed("int8", "tensorrt").folder)
    assert made.manifest.model_size < 0.36 * tiny_fp32.manifest.model_size
    assert not errors_of(check_file(made.model_path))


def test_the_manifest_says_what_was_done_and_that_nothing_was_executed(compressed: Compress, tiny_fp32: Artifact) -> None:
    manifest = compressed("int8", "tensorrt").manifest
    assert (manifest.runtimes, manifest.format, manifest.precision, manifest.storage) == (("tensorrt",), "onnx", "int8", "int8")
    parity, parameters = manifest.parity[-1], manifest.recipe[-1].parameters
    assert parity.reference == "onnxruntime fp32, node by node"
    assert "reference numerics: Q/DQ simulated in float, not executed in TensorRT" in parity.candidate
    assert 0 < parity.relative_l2 < INT8_TOLERANCE
    assert parameters["int8_layers"] == 16
    assert parameters["left_float"] == {"encoder1.embedding": "3 channels, fewer than 8", "output": "4 channels, fewer than 8"}
    assert set(parameters["rule_warnings"]) == {"resize", "alignment"}
    assert (parameters["transposed_scales"], parameters["ranges"]) == ("tensor", "mean min-max")
    assert manifest.parity[:-1] == tiny_fp32.manifest.parity


def test_reference_numerics_are_those_of_the_file_without_any_fusion(compressed: Compress, tiny_fp32: Artifact) -> None:
    made = compressed("int8", "tensorrt")
    batch = parity_input(made.manifest.spec, made.manifest.spec.spatial.size)
    found = simulate(made.model_path, batch)
    expected = outputs_of(onnx.load(made.model_path), batch, ["probabilities"])["probabilities"]
    np.testing.assert_array_equal(found, expected)
    with open_session(tiny_fp32, "openvino") as session:
        distance = np.linalg.norm(found - session.infer(batch)) / np.linalg.norm(found)
    assert 0.5 * made.manifest.parity[-1].relative_l2 < distance < INT8_TOLERANCE


def test_the_same_calibration_gives_the_same_file(
    compressed: Compress, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    again = quantize(tiny_fp32, "int8", tmp_path / "again", runtime="tensorrt", calibration=tiny_calibration)
    assert again.digest == compressed("int8", "tensorrt").digest


def test_the_rewritten_network_has_its_transposed_convolutions_in_int8(
    compressed: Compress, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    made = quantize(compressed("rewrite", "onnxruntime"), "int8", tmp_path / "int8", runtime="tensorrt", calibration=tiny_calibration)
    graph = onnx.load(made.model_path).graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    transposed = [node for node in graph.node if node.op_type == "ConvTranspose"]
    assert len(transposed) == 3
    assert all(set(node.input[:2]) <= dequantized for node in transposed)
    assert set(made.manifest.recipe[-1].parameters["rule_warnings"]) == {"alignment"}


def test_modules_may_stay_float_and_the_float_part_may_be_fp16(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    made = quantize(
        tiny_fp32, "int8", tmp_path / "mixed", runtime="tensorrt", calibration=tiny_calibration, keep_float=("decoder1",),
        float_precision="fp16",
    )  # fmt: skip
    parameters = made.manifest.recipe[-1].parameters
    assert made.manifest.float_precision == parameters["float_precision"] == "fp16"
    assert parameters["left_float"]["decoder1.conv1"] == "asked for"
    assert not errors_of(check_file(made.model_path))
    assert made.manifest.parity[-1].relative_l2 < INT8_TOLERANCE


def test_fp16_keeps_norms_softmax_and_both_ends_in_fp32() -> None:
    model = unet_graph()
    plan = plan_int8(model.graph)
    values = outputs_of(model, image_of(), list(plan.tensors))
    insert_qdq(model, plan, {name: (float(v.min()), float(v.max())) for name, v in values.items()})
    before = outputs_of(model, image_of(), ["probabilities"])["probabilities"]
    typed = type_float16(model)
    onnx.checker.check_model(typed, full_check=True)
    types = {value.name: value.type.tensor_type.elem_type for value in onnx.shape_inference.infer_shapes(typed).graph.value_info}
    read = {node.name: types[node.input[0]] for node in typed.graph.node if node.name in ("middle", "up", "last", "norm", "softmax")}
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    assert read == {"middle": half, "up": half, "last": half, "norm": single, "softmax": single}
    ends = [*typed.graph.input, *typed.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {single}
    after = outputs_of(typed, image_of(), ["probabilities"])["probabilities"]
    assert 0 < np.abs(after - before).max() < 0.05
    assert not errors_of(check_model(typed))


def test_fp16_scales_are_refused_where_the_operator_set_has_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="FP16 scales need opset 19, the file has 17"):
        type_float16(unet_graph(opset=17))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keep_float": ("decoder9",)}, InputError, "no convolution belongs to 'decoder9'"),
        ({"float_precision": "bf16"}, InputError, "the float part of int8 for tensorrt cannot be bf16"),
    ],
)
def test_a_mix_that_cannot_be_made_is_refused(
    options: dict[str, Any], error: type[Exception], message: str, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        quantize(tiny_fp32, "int8", tmp_path / "mixed", runtime="tensorrt", calibration=tiny_calibration, **options)
    assert not (tmp_path / "mixed").exists()


def test_a_file_that_cannot_be_simulated_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not ONNX")
    with pytest.raises(ArtifactError, match="cannot simulate"):
        simulate(tmp_path / "model.onnx", image_of())


def test_one_calibration_makes_an_artifact_for_each_runtime(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    outcomes = quantize_for_all(tiny_fp32, "int8", tmp_path / "all", calibration=tiny_calibration)
    made = {outcome.runtime: outcome.made for outcome in outcomes if outcome.made is not None}
    assert list(made) == ["openvino", "onnxruntime", "tensorrt"]
    for runtime, artifact in made.items():
        manifest = open_artifact(tmp_path / "all" / runtime).manifest
        assert manifest == artifact.manifest
        assert manifest.runtimes == (runtime,)
        assert manifest.calibration == tiny_calibration.cases
        assert manifest.recipe[-1].parameters["source_sha256"] == tiny_fp32.digest
    assert not any(outcome.findings for outcome in outcomes if outcome.runtime != "tensorrt")
    assert {finding.rule for finding in outcomes[-1].findings} == {"resize", "alignment"}


def test_one_that_fails_leaves_the_others(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "installed", lambda package: package != "nncf")
    outcomes = quantize_for_all(tiny_fp32, "int8", tmp_path / "all", calibration=tiny_calibration)
    assert [outcome.made is not None for outcome in outcomes] == [False, True, True]
    assert isinstance(outcomes[0].error, MissingDependencyError)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["onnxruntime", "tensorrt"]


def test_nothing_is_made_where_something_is_in_the_way(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    (tmp_path / "all" / "tensorrt").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="tensorrt exists"):
        quantize_for_all(tiny_fp32, "int8", tmp_path / "all", calibration=tiny_calibration)
    with pytest.raises(ArtifactError, match="is an artifact"):
        every_runtime.folders_of("int8", tiny_fp32.folder, overwrite=True)
    with pytest.raises(InputError, match="unknown method 'int4'"):
        every_runtime.folders_of("int4", tmp_path / "other", overwrite=False)
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["tensorrt"]
