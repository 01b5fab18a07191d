"""TensorRT is executed elsewhere: here its artifacts are refused in words that say what was checked instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from tiny_models import Compress

from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.runtimes import RUNTIMES, choose_runtime, open_session, tensorrt
from edge_latup.runtimes.base import SessionOptions


def test_it_is_registered_and_never_claims_to_be_there() -> None:
    assert RUNTIMES["tensorrt"] is tensorrt
    assert not tensorrt.is_available()
    assert (tensorrt.describe().name, tensorrt.describe().devices) == ("tensorrt", ())


def test_opening_an_artifact_says_what_was_checked_and_what_to_do(compressed: Compress) -> None:
    artifact = compressed("int8", "tensorrt")
    for attempt in (lambda: open_session(artifact), lambda: tensorrt.open(artifact, SessionOptions())):
        with pytest.raises(
            MissingDependencyError, match="does not execute TensorRT: .* reference numerics were checked, no engine"
        ) as caught:
            attempt()
        assert caught.value.exit_code == 3
        assert "trtexec --onnx=" in caught.value.hint


def test_its_artifact_runs_in_no_other_runtime(compressed: Compress) -> None:
    with pytest.raises(ArtifactError, match="was made for tensorrt, not for onnxruntime"):
        choose_runtime(compressed("int8", "tensorrt"), "onnxruntime")


@pytest.mark.parametrize("entry", ["{}", "{}@tensorrt"])
def test_bench_refuses_to_time_it(cli: Command, compressed: Compress, tmp_path: Path, entry: str) -> None:
    done = cli("bench", entry.format(compressed("int8", "tensorrt").folder), "--out", tmp_path / "run")
    assert (done.code, done.out) == (3, "")
    assert "does not execute TensorRT" in done.err
    assert "trtexec" in done.err.split("hint: ")[1]
    assert not (tmp_path / "run").exists()
