"""What cannot work is refused before anything is built: the reason, the next best option and its source, for each case by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import model_of
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError
from edge_latup.runtimes.onnx_facts import ModelFacts, facts_of
from edge_latup.runtimes.tensorrt_limits import FIRST_WITH, GIB, TargetFacts, refusals, refuse
from edge_latup.targets.engine_limits import answers, refuse_everywhere
from edge_latup.targets.profile import Profile, read_profile

PROFILE = """
name = "a-board"
title = "A board"
kind = "jetson"
processor = "GPU"
architecture = "aarch64"
compute_capability = "8.7"
unified_memory = true
runtimes = ["tensorrt"]
dla_cores = 2
gmacs = { fp32 = { value = 1.0, kind = "published", source = "s" } }
bandwidth_gb_s = { value = 1.0, kind = "published", source = "s" }
memory_gib = { value = 8.0, kind = "published", source = "s" }
tensorrt = [
    { system = "JetPack 5.1", tensorrt = "8.5", source = "s" },
    { system = "JetPack 6.2", tensorrt = "10.3", source = "s" },
]
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "a-board.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def model(**changes: Any) -> ModelFacts:
    fields: dict[str, Any] = {
        "opset": 17, "operators": frozenset({"Conv"}), "foreign": frozenset(), "spatial_axes": 3, "quantized": True,
        "types": frozenset({"float", "int8"}), "weight_bytes": 3 << 20, "activation_bytes": 1 << 30,
    }  # fmt: skip
    return ModelFacts(**(fields | changes))


def target(**changes: Any) -> TargetFacts:
    fields: dict[str, Any] = {"name": "rtx-3060-12gb", "compute_capability": "8.6", "tensorrt": "10.16", "memory_bytes": 12 * GIB}
    return TargetFacts(**(fields | changes))


@pytest.mark.parametrize(
    ("facts", "place", "asked", "key", "reason", "instead"),
    [
        ({}, {"dla": True, "compute_capability": "8.7", "unified": True}, "int8", "dla", "takes 2-D tensors only", "board's GPU"),
        ({}, {}, "fp8", "fp8", "FP8 needs compute capability 8.9 or newer; rtx-3060-12gb has 8.6", "build INT8"),
        ({"types": frozenset({"float8e4m3fn"})}, {}, "int8", "fp8", "FP8 needs compute capability 8.9", "build INT8"),
        ({}, {"compute_capability": "7.5"}, "bf16", "bf16", "BF16 needs compute capability 8.0", "typed-fp16"),
        ({}, {"compute_capability": "5.3", "tensorrt": "8.2"}, "int8", "int8", "INT8 needs compute capability 6.1", "typed-fp16"),
        ({}, {"compute_capability": "6.2", "tensorrt": "8.2"}, "int8", "int8", "has 6.2", "typed-fp16"),
        ({"quantized": False}, {}, "int8", "no-qdq", "without Q/DQ.*strongly typed", "quantize ARTIFACT --method int8"),
        ({"quantized": False}, {"tensorrt": "11.4"}, "int8", "no-qdq", "TensorRT 11 has no calibrators", "--calibration"),
        ({"opset": 20}, {"tensorrt": "8.5"}, "int8", "opset", "opset 20, and the parser of TensorRT 8.5 reads up to 17", "opset 17"),
        ({}, {"tensorrt": "8.2"}, "int8", "opset", "reads up to 13", "exports opset 17 and newer"),
        ({"operators": frozenset({"LayerNormalization"})}, {"tensorrt": "8.5"}, "int8", "operators", "no importer for Lay", "spelled out"),
        ({"foreign": frozenset({"com.microsoft::Gelu"})}, {}, "int8", "operators", "com.microsoft::Gelu", "spelled out"),
        ({}, {"tensorrt": "8.5"}, "int8", "old-tensorrt", "with TensorRT 10.3 or newer", "trtexec"),
        ({}, {"compute_capability": "7.2", "tensorrt": "10.16"}, "int8", "old-gpu", "7.5 and newer", "own JetPack"),
        ({"activation_bytes": 20 * GIB}, {}, "int8", "memory", "needs about 20.0 GiB .computed.*about 11.5 GiB", "smaller patch"),
        ({"activation_bytes": 7 * GIB}, {"memory_bytes": 8 * GIB, "unified": True}, "int8", "memory", "about 6.0 GiB", "INT8 over FP16"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(facts: dict[str, Any], place: dict[str, Any], asked: Any, key: str, reason: str, instead: str) -> None:
    found = {refused.key: refused for refused in refusals(model(**facts), target(**place), asked)}
    assert key in found
    assert found[key].source
    assert instead in found[key].instead
    with pytest.raises(ArtifactError) as caught:
        refuse(model(**facts), target(**place), asked, "my file")
    assert caught.value.hint
    assert re.search(reason, found[key].reason)


@pytest.mark.parametrize("tensorrt", ["10.3", "10.16", "11.4", "11"])
@pytest.mark.parametrize("asked", ["int8", "fp16", "fp32", "bf16"])
def test_what_works_is_not_refused(tensorrt: str, asked: Any) -> None:
    assert refusals(model(), target(tensorrt=tensorrt), asked) == []
    refuse(model(), target(tensorrt=tensorrt), asked, "my file")


def test_a_2d_network_may_go_to_an_accelerator() -> None:
    assert refusals(model(spatial_axes=2), target(dla=True), "int8") == []


def test_what_is_not_known_is_not_held_against_it() -> None:
    unknown = target(compute_capability=None, memory_bytes=None)
    assert refusals(model(activation_bytes=None), unknown, "fp8") == []


@given(
    st.sampled_from(["5.3", "6.1", "6.2", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "12.0"]),
    st.sampled_from(list(FIRST_WITH)),
)
def test_a_newer_gpu_never_loses_a_precision(own: str, asked: Any) -> None:
    """The table by another way: once a capability has a precision, every later one has it, TX2's 6.2 and its INT8 apart."""
    keys = {
        refused.key
        for refused in refusals(model(types=frozenset(), quantized=asked in ("int8", "fp8")), target(compute_capability=own), asked)
    }
    has = tuple(map(int, own.split("."))) >= tuple(map(int, FIRST_WITH[asked][0].split(".")))
    assert (asked not in keys) == (has and not (asked == "int8" and own == "6.2"))


def test_facts_are_read_off_the_file(tmp_path: Path) -> None:
    """By hand: x 1x3x4x4x4 (768 B) and y 1x4x4x4x4 (1024 B) are alive at once, then y and z (1024 B each)."""
    import onnx
    from onnx import helper

    weight = np.ones((4, 3, 1, 1, 1), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y0"]), helper.make_node("Relu", ["y0"], ["y"])]
    onnx.save(model_of(nodes, {"w": weight}, (1, 3, 4, 4, 4)), tmp_path / "m.onnx")
    facts = facts_of(tmp_path / "m.onnx")
    assert (facts.opset, facts.spatial_axes, facts.quantized) == (20, 3, False)
    assert facts.operators == {"Conv", "Relu"}
    assert (facts.weight_bytes, facts.activation_bytes) == (48, 2048)
    onnx.save(model_of(nodes, {"w": weight}, (1, 3, "d", 4, 4)), tmp_path / "free.onnx")
    assert facts_of(tmp_path / "free.onnx").activation_bytes is None
    assert facts_of(tmp_path / "free.onnx", (1, 3, 4, 4, 4)).activation_bytes == 2048


def test_a_dequantized_tensor_is_not_stored(compressed: Compress, tiny_fp32: Artifact) -> None:
    """Not below the float file's: the quantized one also holds what was just quantized; but not the dequantized copies on top."""
    shape = tiny_fp32.manifest.input_shape
    plain, quantized = (facts_of(made.model_path, shape) for made in (tiny_fp32, compressed("int8", "tensorrt")))
    assert plain.activation_bytes is not None
    assert quantized.activation_bytes is not None
    assert quantized.activation_bytes < 1.5 * plain.activation_bytes
    assert quantized.weight_bytes < 0.5 * plain.weight_bytes
    assert (plain.quantized, quantized.quantized) == (False, True)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x00\xff" * 100)
    with pytest.raises(ArtifactError, match="cannot be read as ONNX"):
        facts_of(tmp_path / "m.onnx")


def test_each_generation_of_a_target_is_asked(compressed: Compress, profile: Path) -> None:
    board: Profile = read_profile(profile)
    found = answers(compressed("int8", "tensorrt").model_path, board)
    assert [(answer.system, sorted(refused.key for refused in answer.refused)) for answer in found] == [
        ("JetPack 5.1", ["old-tensorrt", "opset"]), ("JetPack 6.2", []),
    ]  # fmt: skip
    refuse_everywhere(found, "it")
    with pytest.raises(ArtifactError, match=r"gives no engine on a-board \(JetPack 5.1, TensorRT 8.5\)"):
        refuse_everywhere(found[:1], "it")


def test_a_target_without_tensorrt_is_refused(compressed: Compress, profile: Path) -> None:
    board = read_profile(profile).model_copy(update={"tensorrt": ()})
    with pytest.raises(InputError, match="a-board has no TensorRT"):
        answers(compressed("int8", "tensorrt").model_path, board)


def test_the_command_shows_and_refuses(cli: Command, compressed: Compress, tiny_fp32: Artifact, profile: Path) -> None:
    made = compressed("int8", "tensorrt")
    done = cli("inspect", made.folder, "--rules", "tensorrt", "--target", profile)
    assert done.code == 0, done.err
    assert "nothing known stands against it" in done.out
    assert "reads up to 17" in done.out
    told = cli("--json", "inspect", made.folder, "--rules", "tensorrt", "--target", profile)
    assert [answer["takes_it"] for answer in told.data["target"]] == [False, True]
    assert all(own["why_not"] == "" for own in told.data["fusions"])
    on_dla = cli("inspect", made.folder, "--rules", "tensorrt", "--target", profile, "--dla")
    assert on_dla.code == 2
    assert "takes 2-D tensors only" in on_dla.err
    assert "leave out --dla" in on_dla.err
    fp8 = cli("inspect", made.folder, "--rules", "tensorrt", "--target", profile, "--precision", "fp8")
    assert (fp8.code, "FP8 needs compute capability 8.9" in fp8.err, "build INT8" in fp8.err) == (2, True, True)
    asked = cli("inspect", tiny_fp32.folder, "--rules", "tensorrt", "--target", profile, "--precision", "int8")
    assert (asked.code, "without Q/DQ" in asked.err, "--method int8" in asked.err) == (2, True, True)


def test_a_float_artifact_is_not_blamed_for_being_one(cli: Command, compressed: Compress) -> None:
    done = cli("inspect", compressed("typed-fp16", "tensorrt").folder, "--rules", "tensorrt")
    assert done.code == 0, done.err


@pytest.mark.parametrize("given_options", [("--target", "x"), ("--precision", "int8")])
def test_options_of_rules_are_refused_without_them(cli: Command, compressed: Compress, given_options: tuple[str, ...]) -> None:
    done = cli("inspect", compressed("int8", "tensorrt").folder, *given_options)
    assert (done.code, "add --rules tensorrt" in done.err) == (2, True)
