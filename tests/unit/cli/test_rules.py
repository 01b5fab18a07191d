"""`edge-latup inspect --rules tensorrt` checks any ONNX file, and ends with an error where a rule is broken."""

from __future__ import annotations

from command import Command
from tiny_models import Compress


def test_rules_of_tensorrt_are_checked_on_any_onnx_file(cli: Command, compressed: Compress) -> None:
    made = compressed("int8", "tensorrt")
    done = cli("inspect", made.folder, "--rules", "tensorrt")
    assert done.code == 0, done.err
    assert "alignment" in done.out
    assert "NVIDIA/TensorRT#1310" in done.out
    other = cli("--json", "inspect", compressed("int8", "onnxruntime").model_path, "--rules", "tensorrt")
    assert other.code == 2
    assert "breaks TensorRT's rule 'zero-point'" in other.err
    assert {"zero-point", "type"} <= {finding["rule"] for finding in other.data}
    assert all(finding["remedy"] and finding["source"] for finding in other.data)


def test_an_accelerator_that_takes_two_dimensions_is_refused(cli: Command, compressed: Compress) -> None:
    done = cli("inspect", compressed("int8", "tensorrt").folder, "--rules", "tensorrt", "--dla")
    assert done.code == 2
    assert "DLA takes 2-D tensors only" in done.err


def test_rules_that_there_are_none_of_are_refused(cli: Command, compressed: Compress) -> None:
    done = cli("inspect", compressed("int8", "tensorrt").folder, "--rules", "tvm")
    assert (done.code, done.out) == (2, "")
    assert "--rules tensorrt" in done.err
