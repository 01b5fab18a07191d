"""OpenVINO pins its precision, because its default is BF16 where the CPU has it; its cache never mixes precisions or thread counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import CONVOLUTIONS, Compress, convolutions, some_batch

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.manifest import Precision
from edge_latup.runtimes import open_session
from edge_latup.runtimes import openvino as runtime
from edge_latup.runtimes.base import SessionOptions, precision_summary
from edge_latup.runtimes.openvino import import_openvino, openvino_core
from edge_latup.runtimes.openvino_audit import quantized_dense
from edge_latup.targets.diagnosis import diagnose

CAN_BF16 = "bf16" in diagnose().openvino_precisions
needs_bf16 = pytest.mark.skipif(not CAN_BF16, reason="this CPU does not compute in bf16")


def test_an_fp32_artifact_computes_in_fp32_whatever_the_cpus_default_is(tiny_fp32: Artifact) -> None:
    with open_session(tiny_fp32, "openvino") as session:
        assert session.float_precision == "f32"
        assert precision_summary(convolutions(session.executed_kernels())) == {"f32": CONVOLUTIONS}


@needs_bf16
def test_a_bf16_artifact_computes_in_bf16(compressed: Compress) -> None:
    with open_session(compressed("bf16", "openvino"), "openvino") as session:
        assert session.float_precision == "bf16"
        assert precision_summary(convolutions(session.executed_kernels())) == {"bf16": CONVOLUTIONS}


@needs_bf16
def test_the_precision_asked_for_goes_before_the_manifests(tiny_fp32: Artifact) -> None:
    with open_session(tiny_fp32, "openvino", SessionOptions(float_precision="bf16")) as session:
        assert session.float_precision == "bf16"


def test_a_pin_that_does_not_hold_is_a_missing_device(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU without bf16, whose plugin answers f32."""
    monkeypatch.setattr(runtime.OpenVinoSession, "float_precision", "f32")
    with pytest.raises(MissingDependencyError, match="asked OpenVINO for bf16, it would run f32 on this CPU") as caught:
        open_session(tiny_fp32, "openvino", SessionOptions(float_precision="bf16"))
    assert "edge-latup doctor" in caught.value.hint


def test_int8_is_no_float_precision(tiny_fp32: Artifact) -> None:
    with pytest.raises(ArtifactError, match="float_precision cannot be int8"):
        open_session(tiny_fp32, "openvino", SessionOptions(float_precision="int8"))


def _from_cache(artifact: Artifact, options: SessionOptions) -> tuple[bool, np.ndarray]:
    with runtime.open(artifact, options) as session:
        return bool(session._compiled.get_property("LOADED_FROM_CACHE")), session.infer(some_batch())


def test_the_second_open_takes_the_compiled_model_from_the_cache(tiny_fp32: Artifact, tmp_path: Path) -> None:
    options = SessionOptions(cache_dir=tmp_path / "cache" / "made", threads=1)
    cached, first = _from_cache(tiny_fp32, options)
    assert not cached
    files = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert files
    cached, second = _from_cache(tiny_fp32, options)
    assert cached
    assert sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file()) == files
    np.testing.assert_array_equal(first, second)


def test_without_a_cache_folder_nothing_is_kept(tiny_fp32: Artifact) -> None:
    assert not _from_cache(tiny_fp32, SessionOptions())[0]
    assert not _from_cache(tiny_fp32, SessionOptions())[0]


def test_a_compiled_model_is_not_shared_between_precisions_or_thread_counts(tiny_fp32: Artifact, tmp_path: Path) -> None:
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if CAN_BF16 else ("fp32",)
    for precision in precisions:
        for threads in (1, 2):
            options = SessionOptions(cache_dir=tmp_path, threads=threads, float_precision=precision)
            assert not _from_cache(tiny_fp32, options)[0]
            assert _from_cache(tiny_fp32, options)[0]


def test_another_model_is_not_taken_from_the_cache(tiny_fp32: Artifact, compressed: Compress, tmp_path: Path) -> None:
    options = SessionOptions(cache_dir=tmp_path)
    _from_cache(tiny_fp32, options)
    other = compressed("dynamic-range", "openvino")
    assert not _from_cache(other, options)[0]
    np.testing.assert_array_equal(_from_cache(other, options)[1], _from_cache(other, SessionOptions())[1])


SAYING_NO = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")
"""With one of these the packages are silent by themselves."""
SILENT = """
import sys
from pathlib import Path
import numpy as np
from edge_latup.artifact import open_artifact
from edge_latup.quantize.prepared import prepare
from edge_latup.quantize.static_int8 import openvino_int8
from edge_latup.runtimes import RUNTIMES, open_session
from edge_latup.targets.diagnosis import diagnose
diagnose()
RUNTIMES["openvino"].describe()
artifact = open_artifact(Path(sys.argv[1]))
batch = np.random.default_rng(0).random(artifact.manifest.input_shape, dtype=np.float32)
for runtime in ("openvino", "onnxruntime"):
    with open_session(artifact, runtime) as session:
        session.infer(batch)
with prepare(artifact.model_path, [batch]) as prepared:
    openvino_int8(Path(sys.argv[2]), prepared, preset="mixed")
sys.exit("openvino_telemetry" in sys.modules)
"""


def test_nothing_is_told_to_anybody(tiny_fp32: Artifact, tmp_path: Path) -> None:
    """OpenVINO, NNCF and ONNX Runtime report their use over the network unless stopped, and keep a client's number in the home folder."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in SAYING_NO} | {"HOME": str(home)}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", SILENT, str(tiny_fp32.folder), str(out)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (out / "model.xml").is_file()
    assert not list(home.rglob("*"))


def test_a_telemetry_package_that_somebody_else_imported_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, runtime.TELEMETRY, os)
    with runtime.without_telemetry(), runtime.without_telemetry():
        assert sys.modules[runtime.TELEMETRY] is None
    assert sys.modules[runtime.TELEMETRY] is os
    monkeypatch.delitem(sys.modules, runtime.TELEMETRY)
    with runtime.without_telemetry(), pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401
    assert runtime.TELEMETRY not in sys.modules


def dense_model(low: float) -> Any:
    """A dense layer with 8-bit weights; what it reads is quantized where `low` is below 1."""
    ov = import_openvino()
    from openvino import opset13 as ops

    def quantized(value: Any, low: float, levels: int) -> Any:
        bounds = [ops.constant(np.float32(bound)) for bound in (low, 1.0)]
        return ops.fake_quantize(value, *bounds, *bounds, levels=levels)

    image = ops.parameter([1, 8], dtype=np.float32, name="image")
    read = quantized(image, low, 256) if low < 1 else image
    weights = quantized(ops.constant(np.ones((8, 2), np.float32)), -1.0, 255)
    product = ops.matmul(ops.reshape(read, [1, 8], special_zero=False), weights, False, False)
    return ov.Model([product], [image], "dense")


def test_dense_layers_that_read_int8_are_found() -> None:
    assert len(quantized_dense(dense_model(0.0))) == 1
    assert quantized_dense(dense_model(1.0)) == (), "8-bit weights alone are computed in float"


def test_int8_made_here_leaves_dense_layers_in_float_and_runs_on_one_thread(compressed: Compress) -> None:
    artifact = compressed("int8", "openvino")
    assert quantized_dense(openvino_core().read_model(artifact.model_path)) == ()
    with open_session(artifact, "openvino", SessionOptions(threads=1)) as session:
        assert session.float_precision == "f32"
