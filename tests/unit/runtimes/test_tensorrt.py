"""Where TensorRT is not installed its artifacts are refused in words that say what is missing and how to go on."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_tensorrt
import pytest
from command import Command
from fake_tensorrt import Behaviour
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.runtimes import RUNTIMES, choose_runtime, open_session, tensorrt
from edge_latup.runtimes.base import SessionOptions


def test_it_is_registered_and_not_there_without_its_packages_and_a_gpu() -> None:
    assert RUNTIMES["tensorrt"] is tensorrt
    assert not tensorrt.is_available()
    assert (tensorrt.describe().name, tensorrt.describe().devices) == ("tensorrt", ())


def test_opening_an_artifact_says_what_is_missing_and_what_to_do(compressed: Compress) -> None:
    artifact = compressed("int8", "tensorrt")
    for attempt in (lambda: open_session(artifact), lambda: tensorrt.open(artifact, SessionOptions())):
        with pytest.raises(MissingDependencyError, match="TensorRT needs tensorrt, which is not installed") as caught:
            attempt()
        assert caught.value.exit_code == 3
        assert "in edge-latup's folder: pip install -c constraints.txt '.[audit,tensorrt]' tensorrt" in caught.value.hint
        assert "trtexec --onnx=" in caught.value.hint


@pytest.mark.parametrize(("devices", "told"), [(0, "CUDA finds none"), (1, "")])
def test_a_gpu_must_answer(monkeypatch: pytest.MonkeyPatch, devices: int, told: str) -> None:
    fake_tensorrt.install(monkeypatch, Behaviour())
    monkeypatch.setattr("edge_latup.runtimes.tensorrt_cuda.device_count", lambda: devices)
    assert tensorrt.missing().endswith(told)
    assert tensorrt.is_available() == bool(devices)
    assert len(tensorrt.describe().devices) == devices


def test_a_broken_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, Behaviour())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert tensorrt.missing().startswith("TensorRT does not import")


def test_a_runtime_without_options_of_its_own_refuses_them(tiny_fp32: Artifact) -> None:
    with pytest.raises(InputError, match="openvino has no option 'provider'"):
        open_session(tiny_fp32, "openvino", SessionOptions(runtime_options={"provider": "cuda"}))


def test_its_artifact_runs_in_no_other_runtime(compressed: Compress) -> None:
    with pytest.raises(ArtifactError, match="was made for tensorrt, not for onnxruntime"):
        choose_runtime(compressed("int8", "tensorrt"), "onnxruntime")


@pytest.mark.parametrize("entry", ["{}", "{}@tensorrt"])
def test_bench_refuses_to_time_it(cli: Command, compressed: Compress, tmp_path: Path, entry: str) -> None:
    done = cli("bench", entry.format(compressed("int8", "tensorrt").folder), "--out", tmp_path / "run")
    assert (done.code, done.out) == (3, "")
    assert "TensorRT needs tensorrt" in done.err
    assert "trtexec" in done.err.split("hint: ")[1]
    assert not (tmp_path / "run").exists()
