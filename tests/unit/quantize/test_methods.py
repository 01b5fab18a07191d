"""Every method makes a smaller artifact that runs where it should, computes nearly the same, and says what it is; or it makes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tree
from tiny_models import CONVOLUTIONS, Compress, convolutions, pointwise_artifact, some_batch

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.cases.identity import case_digest
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.manifest import RuntimeName
from edge_latup.quantize import methods, weights
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import METHODS, check_calibration, choose, quantize
from edge_latup.runtimes import RUNTIMES, open_session
from edge_latup.runtimes.base import SessionOptions, precision_summary
from edge_latup.segmentation.parity import compare, parity_input
from edge_latup.targets.diagnosis import diagnose

needs_bf16 = pytest.mark.skipif("bf16" not in diagnose().openvino_precisions, reason="this CPU does not compute in bf16")
MADE: tuple[tuple[str, RuntimeName], ...] = tuple(
    (name, runtime) for name, method in METHODS.items() for runtime in method.recipes if runtime != "tensorrt"
)
"""What is executed here; TensorRT's is in test_tensorrt_int8.py."""
EVERY = [pytest.param(*made, marks=needs_bf16 if METHODS[made[0]].float_precision == "bf16" else ()) for made in MADE]
# Relative L2 of the output on real-looking input. Stored weights are off by 1/254 (int8), 2^-12 (fp16), 2^-9 (bf16) of
# their size; eighteen layers add that up like a random walk (x 4.2), and the sharpened random output layer triples it.
STORAGE_TOLERANCE = {"rewrite": 1e-4, "dynamic-range": 0.06, "dynamic-range-bf16": 0.07, "fp16": 0.004, "bf16": 0.03}
# Integer activations have 8 bits, as weights do, and a range from four crops; on random weights only rough agreement can be asked for.
INT8_TOLERANCE = 0.35
# The graph's text weighs as much as a tenth of this tiny network's weights, and more in OpenVINO's XML; the full network's does not.
SHARE = {"rewrite": 1.35, "dynamic-range": 0.32, "dynamic-range-bf16": 0.32, "dynamic-int8": 0.34, "fp16": 0.56, "bf16": 0.56, "int8": 0.36}
XML_SHARE = 0.6


def output_of(artifact: Artifact, runtime: RuntimeName) -> np.ndarray:
    """On the parity input, the float part in FP32 whatever the manifest says."""
    batch = parity_input(artifact.manifest.spec, artifact.manifest.spec.spatial.size)
    with RUNTIMES[runtime].open(artifact, SessionOptions(float_precision="fp32")) as session:
        return session.infer(batch)


@pytest.mark.parametrize(("method", "runtime"), EVERY)
def test_the_artifact_opens_again_and_runs_where_it_was_made_for(method: str, runtime: RuntimeName, compressed: Compress) -> None:
    made = open_artifact(compressed(method, runtime).folder)
    assert made.manifest.runtimes[0] == runtime
    with open_session(made) as session:
        output = session.infer(some_batch())
    assert np.isfinite(output).all()
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-2 if method == "bf16" else 1e-5)


def test_the_reference_computes_once_for_all_that_is_made_of_it(
    tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    opened: list[str] = []

    def counted(artifact: Artifact, *others: Any) -> Any:
        opened.append(artifact.manifest.name)
        return open_session(artifact, *others)

    monkeypatch.setattr(methods, "open_session", counted)
    methods._expected.cache_clear()
    one, other = (quantize(tiny_fp32, method, tmp_path / method) for method in ("dynamic-range", "fp16"))
    assert opened == ["fp32", "dynamic-range", "fp16"]
    # Another runtime computes something else, and another file may.
    quantize(tiny_fp32, "dynamic-range", tmp_path / "again", runtime="onnxruntime")
    assert opened[3:] == ["fp32", "again"]
    figures = [made.manifest.parity[-1].relative_l2 for made in (one, other)]
    expected = [compare(output_of(tiny_fp32, "openvino"), output_of(made, "openvino"))["relative_l2"] for made in (one, other)]
    assert figures == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("method", "runtime"), EVERY)
def test_the_file_is_smaller(method: str, runtime: RuntimeName, compressed: Compress, tiny_fp32: Artifact) -> None:
    made = compressed(method, runtime)
    size = sum(path.stat().st_size for path in made.folder.iterdir() if path.name.startswith("model."))
    assert made.manifest.model_size == size
    assert size / tiny_fp32.manifest.model_size < (XML_SHARE if made.manifest.format == "openvino-ir" else SHARE[method])


@pytest.mark.parametrize(("method", "runtime"), EVERY)
def test_the_manifest_says_what_was_done_and_measured(method: str, runtime: RuntimeName, compressed: Compress, tiny_fp32: Artifact) -> None:
    manifest, declared = compressed(method, runtime).manifest, METHODS[method]
    assert manifest.name == f"{method}-{runtime}"
    assert (manifest.precision, manifest.float_precision, manifest.storage) == (
        declared.precision, declared.float_precision, declared.storage,
    )  # fmt: skip
    assert manifest.spec == tiny_fp32.manifest.spec
    assert manifest.trained_on == tiny_fp32.manifest.trained_on
    assert [step.operation for step in manifest.recipe] == ["export", "quantize"]
    step = manifest.recipe[-1]
    assert step.parameters["method"] == method
    assert step.parameters["runtime"] == runtime
    assert step.parameters["source_sha256"] == tiny_fp32.digest
    assert step.versions["python"]
    assert manifest.parity[:-1] == tiny_fp32.manifest.parity
    assert manifest.parity[-1].reference == f"{runtime} fp32"
    assert manifest.parity[-1].max_abs > 0


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("method", [pytest.param(name, marks=needs_bf16 if name == "bf16" else ()) for name in STORAGE_TOLERANCE])
def test_small_weights_load_in_both_runtimes_and_give_nearly_the_same(
    method: str, runtime: RuntimeName, compressed: Compress, tiny_fp32: Artifact
) -> None:
    figures = compare(output_of(tiny_fp32, runtime), output_of(compressed(method, "openvino"), runtime))
    assert 0 < figures["relative_l2"] < STORAGE_TOLERANCE[method]
    assert figures["argmax_agreement"] > 0.95


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_static_int8_runs_every_convolution_in_integers(runtime: RuntimeName, compressed: Compress, tiny_fp32: Artifact) -> None:
    made = compressed("int8", runtime)
    with open_session(made, runtime) as session:
        executed = precision_summary(convolutions(session.executed_kernels()))
        assert session.float_precision == "f32"
    assert sum(executed.get(precision, 0) for precision in ("i8", "u8")) == CONVOLUTIONS == sum(executed.values())
    assert compare(output_of(tiny_fp32, runtime), output_of(made, runtime))["relative_l2"] < INT8_TOLERANCE


def test_dynamic_int8_runs_its_convolutions_in_integers(compressed: Compress, tiny_fp32: Artifact) -> None:
    made = compressed("dynamic-int8", "onnxruntime")
    with open_session(made, "onnxruntime") as session:
        operations = [kernel.operation for kernel in convolutions(session.executed_kernels())]
    assert operations == ["ConvInteger"] * CONVOLUTIONS
    assert compare(output_of(tiny_fp32, "onnxruntime"), output_of(made, "onnxruntime"))["relative_l2"] < INT8_TOLERANCE


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_calibration_cases_are_listed_by_their_hash(runtime: RuntimeName, compressed: Compress, calibration_cases: Path) -> None:
    manifest = compressed("int8", runtime).manifest
    cases = [read_case(files, manifest.spec.modalities) for files in find_cases(calibration_cases)]
    assert [(seen.name, seen.sha256) for seen in manifest.calibration] == [(case.name, case_digest(case)) for case in cases]
    assert manifest.recipe[-1].parameters["calibration_inputs"] == 4
    assert not compressed("dynamic-range", "openvino").manifest.calibration


def test_the_same_calibration_gives_the_same_file(
    compressed: Compress, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    again = quantize(tiny_fp32, "int8", tmp_path / "again", runtime="onnxruntime", calibration=tiny_calibration)
    assert again.digest == compressed("int8", "onnxruntime").digest


@pytest.mark.parametrize(("method", "runtime"), [("int8", "openvino"), ("int8", "onnxruntime"), ("dynamic-int8", "onnxruntime")])
def test_a_quantizer_prints_nothing_and_the_source_is_unchanged(
    method: str, runtime: RuntimeName, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(tiny_fp32.folder)
    capfd.readouterr()
    quantize(tiny_fp32, method, tmp_path / "out", runtime=runtime, calibration=tiny_calibration if method == "int8" else None)
    captured = capfd.readouterr()
    assert captured.out == "", "stdout carries the result of a command, and nothing else"
    assert captured.err == ""
    assert tree(tiny_fp32.folder) == before


def test_an_unknown_method_is_refused_with_those_there_are(tiny_fp32: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown method 'int4'") as caught:
        quantize(tiny_fp32, "int4", tmp_path / "out")
    assert all(method in caught.value.hint for method in METHODS)


@pytest.mark.parametrize(("method", "runtime"), [("bf16", "onnxruntime"), ("dynamic-int8", "openvino"), ("int8", "pytorch")])
def test_a_method_that_makes_nothing_for_a_runtime_says_for_which_it_does(method: str, runtime: RuntimeName) -> None:
    with pytest.raises(InputError, match=f"{method} makes nothing for {runtime}") as caught:
        choose(method, runtime)
    assert all(name in caught.value.hint for name in METHODS[method].recipes)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "installed", lambda package: package != "nncf")
    with pytest.raises(MissingDependencyError, match="int8 for openvino needs nncf") as caught:
        choose("int8", "openvino")
    assert caught.value.hint == "in edge-latup's folder: pip install -c constraints.txt '.[engineer]'"
    choose("int8", "onnxruntime")


def test_calibration_that_is_missing_or_needless_is_refused(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8 needs calibration cases") as caught:
        quantize(tiny_fp32, "int8", tmp_path / "out")
    assert "--calibration" in caught.value.hint
    with pytest.raises(InputError, match="dynamic-range looks at no cases"):
        quantize(tiny_fp32, "dynamic-range", tmp_path / "out", calibration=tiny_calibration)
    check_calibration("int8", given=True)
    check_calibration("fp16", given=False)
    assert not tree(tmp_path)


def test_what_is_already_compressed_is_refused(compressed: Compress, tiny_reference: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is onnx with int8 weights; compression starts from FP32 ONNX") as caught:
        quantize(compressed("dynamic-range", "openvino"), "fp16", tmp_path / "out")
    assert "edge-latup export" in caught.value.hint
    with pytest.raises(ArtifactError, match="is checkpoint with float32 weights"):
        quantize(tiny_reference, "fp16", tmp_path / "out")
    assert not tree(tmp_path)


def test_a_model_without_large_weights_is_refused(tmp_path: Path) -> None:
    source = pointwise_artifact(tmp_path / "source", (16, 16, 16))
    with pytest.raises(ArtifactError, match="has no constant float32 weights to store smaller"):
        quantize(source, "dynamic-range", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def _write_garbage(source: Path, destination: Path, store: Any) -> int:
    destination.write_bytes(b"not ONNX")
    return 1


def _write_nan(source: Path, destination: Path, store: Any) -> int:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    weight = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [4, 8, 1, 1, 1])
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    onnx.save(model, destination)
    return 1


def _write_halved(source: Path, destination: Path, store: Any) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (_write_garbage, ArtifactError, "cannot load"),
        (_write_nan, ArtifactError, "output holds NaN or infinity"),
        (_write_halved, OSError, "No space left on device"),
    ],
)
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_what_does_not_load_or_gives_nan_is_never_shipped(
    write: Callable[[Path, Path, Any], int], error: type[Exception], message: str, runtime: RuntimeName, tiny_fp32: Artifact,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(weights, "rewrite_weights", write)
    with pytest.raises(error, match=message):
        quantize(tiny_fp32, "dynamic-range", tmp_path / "out", runtime=runtime)
    assert not tree(tmp_path)


def test_an_artifact_that_is_there_is_kept_unless_told_otherwise(tiny_fp32: Artifact, tmp_path: Path) -> None:
    first = quantize(tiny_fp32, "fp16", tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="exists") as caught:
        quantize(tiny_fp32, "dynamic-range", tmp_path / "out")
    assert "--overwrite" in caught.value.hint
    assert tree(tmp_path) == before
    second = quantize(tiny_fp32, "dynamic-range", tmp_path / "out", overwrite=True)
    assert open_artifact(tmp_path / "out").digest == second.digest != first.digest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_quantizers_are_imported_only_where_they_quantize(tmp_path: Path) -> None:
    """Importing the methods, as the command line does to check its arguments, costs no seconds."""
    heavy = "{'nncf', 'onnx', 'openvino', 'onnxruntime', 'torch'}"
    code = f"import sys, edge_latup.quantize.methods; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


def test_int8_may_leave_modules_in_float(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    made = quantize(tiny_fp32, "int8", tmp_path / "mixed", calibration=tiny_calibration, keep_float=("decoder1", "output"))
    assert made.manifest.recipe[-1].parameters["keep_float"] == ("decoder1", "output")
    with open_session(made, "openvino", SessionOptions(threads=2)) as session:
        executed = precision_summary(convolutions(session.executed_kernels()))
    assert executed["f32"] == 4, "up_conv, conv1, conv2 and the output"
    assert sum(executed.values()) == CONVOLUTIONS


def test_the_float_part_of_int8_may_be_computed_in_another_precision(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    if "bf16" not in diagnose().openvino_precisions:
        pytest.skip("this CPU does not compute in bf16")
    made = quantize(tiny_fp32, "int8", tmp_path / "mixed", calibration=tiny_calibration, float_precision="bf16")
    assert (made.manifest.precision, made.manifest.float_precision) == ("int8", "bf16")
    with open_session(made, "openvino", SessionOptions(threads=2)) as session:
        assert session.float_precision == "bf16"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("int8", {"keep_float": ("decoder9",)}, "no convolution belongs to 'decoder9'"),
        ("int8", {"float_precision": "int8"}, "cannot be int8"),
        ("dynamic-range", {"keep_float": ("decoder1",)}, "only int8 for OpenVINO and TensorRT mixes"),
    ],
)
def test_a_mix_that_cannot_be_made_is_refused(
    method: str, options: dict[str, Any], message: str, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    calibration = tiny_calibration if method == "int8" else None
    with pytest.raises(InputError, match=message):
        quantize(tiny_fp32, method, tmp_path / "mixed", calibration=calibration, **options)
    assert not (tmp_path / "mixed").exists()
