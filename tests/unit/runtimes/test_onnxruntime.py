"""ONNX Runtime computes its float part in FP32 only; what it executes is read from the graph it optimised."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from tiny_models import CONVOLUTIONS, Compress, some_batch

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.runtimes import onnxruntime as runtime
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions


def test_fusions_are_seen(tiny_fp32: Artifact) -> None:
    with open_session(tiny_fp32, "onnxruntime") as session:
        operations = [kernel.operation for kernel in session.executed_kernels()]
        domains = {json.loads(kernel.implementation)[0] for kernel in session.executed_kernels()}
    assert operations.count("FusedConv") + operations.count("Conv") == CONVOLUTIONS
    assert "FusedConv" in operations, "convolutions and their LeakyReLU run as one"
    assert {"ai.onnx", "com.microsoft"} <= domains


def test_an_integer_convolution_counts_as_i8_and_a_dequantized_weight_does_not(compressed: Compress) -> None:
    with open_session(compressed("int8", "onnxruntime"), "onnxruntime") as session:
        precisions = {kernel.operation: kernel.precision for kernel in session.executed_kernels()}
    assert precisions["QLinearConv"] == "i8"
    assert precisions["DequantizeLinear"] == "f32"


def test_reading_the_kernels_needs_onnx_and_running_does_not(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda package: package != "onnx")
    with open_session(tiny_fp32, "onnxruntime") as session:
        assert session.infer(some_batch()).shape[1] == 4
        with pytest.raises(MissingDependencyError, match="needs onnx") as caught:
            session.executed_kernels()
    assert "'.[engineer]'" in caught.value.hint


def test_an_artifact_declared_bf16_is_refused_and_not_run_in_fp32(tiny_fp32: Artifact) -> None:
    declared = tiny_fp32.manifest.model_copy(update={"float_precision": "bf16"})
    with pytest.raises(MissingDependencyError, match="computes in fp32, not bf16"):
        open_session(Artifact(folder=tiny_fp32.folder, manifest=declared), "onnxruntime")


def test_nothing_is_left_in_the_temporary_folder(tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_session(tiny_fp32, "onnxruntime"):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    broken = Artifact(folder=tmp_path, manifest=tiny_fp32.manifest)
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot load"):
        runtime.open(broken, SessionOptions())
    assert not list(tmp_path.iterdir())
