"""What every runtime promises: opened the same way, fed the same way, it computes what PyTorch computes, and says what it executes.

A test here runs once for each runtime, on the artifact that was made for it from one and the same checkpoint.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import CONVOLUTIONS, SIDE, convolutions, pointwise_artifact, some_batch

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.manifest import Precision, RuntimeName
from edge_latup.runtimes import RUNTIMES, open_session
from edge_latup.runtimes.base import SessionOptions, precision_summary, usable_cores
from edge_latup.targets.diagnosis import diagnose

TOLERANCE = 1e-4
"""Of a probability. Runtimes add up in another order; at this size that moves the sixth digit, a wrong padding the first."""
PRECISIONS = {"f32", "bf16", "f16", "i8", "u8", "i32", "i64"}
PACKAGE = {"openvino": "openvino", "onnxruntime": "onnxruntime", "pytorch": "torch"}


@pytest.fixture(params=[name for name in RUNTIMES if name != "tensorrt"])  # executed elsewhere: unit/runtimes/test_tensorrt.py
def runtime(request: pytest.FixtureRequest) -> RuntimeName:
    name: RuntimeName = request.param
    return name


@pytest.fixture
def artifact(runtime: RuntimeName, tiny_fp32: Artifact, tiny_reference: Artifact) -> Artifact:
    return tiny_reference if runtime == "pytorch" else tiny_fp32


@pytest.fixture(autouse=True)
def _torch_threads() -> Iterator[None]:
    """The thread count of PyTorch is a global: each test leaves it as it was."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _copy(artifact: Artifact, folder: Path) -> Path:
    folder.mkdir()
    for path in artifact.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _thread_count(session: Any, runtime: RuntimeName) -> int:
    """As the runtime itself tells it."""
    import torch

    if runtime == "openvino":
        return int(session._compiled.get_property("INFERENCE_NUM_THREADS"))
    return int(session._session.get_session_options().intra_op_num_threads) if runtime == "onnxruntime" else torch.get_num_threads()


def test_an_artifact_opens_on_the_runtime_it_was_made_for(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        assert session.input_shape == artifact.manifest.input_shape == (1, 3, SIDE, SIDE, SIDE)


def test_the_first_runtime_is_the_default(artifact: Artifact) -> None:
    with open_session(artifact) as session:
        assert type(session).__module__.endswith(f".{artifact.manifest.runtimes[0]}")


def test_probabilities_are_those_of_the_network(artifact: Artifact, runtime: RuntimeName, tiny_checkpoint: Path) -> None:
    import torch

    from edge_latup.networks.build import load_checkpoint

    network, _ = load_checkpoint(tiny_checkpoint)
    batch = some_batch()
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    with open_session(artifact, runtime) as session:
        output = session.infer(batch)
    assert output.dtype == np.float32
    assert output.shape == (1, 4, SIDE, SIDE, SIDE)
    assert len(np.unique(expected.argmax(1))) > 1, "a test on one class would prove little"
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(output, expected, rtol=0, atol=TOLERANCE)


def test_the_same_threads_give_the_same_bits(artifact: Artifact, runtime: RuntimeName) -> None:
    options = SessionOptions(threads=2)
    with open_session(artifact, runtime, options) as first, open_session(artifact, runtime, options) as second:
        output = first.infer(some_batch())
        np.testing.assert_array_equal(first.infer(some_batch()), output)
        np.testing.assert_array_equal(second.infer(some_batch()), output)


def test_an_output_is_not_overwritten_by_the_next(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        first = session.infer(some_batch(0))
        kept = first.copy()
        assert not np.array_equal(session.infer(some_batch(1)), kept)
        np.testing.assert_array_equal(first, kept)


def test_the_batch_is_not_modified(artifact: Artifact, runtime: RuntimeName) -> None:
    batch = some_batch()
    kept = batch.copy()
    with open_session(artifact, runtime) as session:
        session.infer(batch)
    np.testing.assert_array_equal(batch, kept)


@pytest.mark.filterwarnings("error")
def test_a_batch_may_be_read_only_and_lie_anyhow_in_memory(artifact: Artifact, runtime: RuntimeName) -> None:
    batch = some_batch()
    frozen, turned = batch.copy(), np.asfortranarray(batch)
    frozen.flags.writeable = False
    with open_session(artifact, runtime) as session:
        expected = session.infer(batch)
        np.testing.assert_array_equal(session.infer(frozen), expected)
        np.testing.assert_array_equal(session.infer(turned), expected)


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 16, 16, 24), (1, 4, 16, 16, 16), (2, 3, 16, 16, 16), (3, 16, 16, 16), (1, 3, 16, 16), (1, 3, 0, 16, 16), (0, 3, 16, 16, 16)],
)
def test_another_shape_is_refused_and_both_shapes_are_named(artifact: Artifact, runtime: RuntimeName, shape: tuple[int, ...]) -> None:
    with open_session(artifact, runtime) as session, pytest.raises(InputError) as caught:
        session.infer(np.zeros(shape, np.float32))
    assert str((1, 3, SIDE, SIDE, SIDE)) in caught.value.message
    assert str(shape) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int16, np.uint8])
def test_another_dtype_is_refused_and_named(artifact: Artifact, runtime: RuntimeName, dtype: type[np.generic]) -> None:
    with open_session(artifact, runtime) as session, pytest.raises(InputError, match=f"float32 .* got {np.dtype(dtype)} "):
        session.infer(some_batch().astype(dtype))


def test_executed_kernels_name_their_precision(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        kernels = session.executed_kernels()
    assert kernels
    assert {kernel.precision for kernel in kernels} <= PRECISIONS
    assert all(kernel.name and kernel.operation and kernel.implementation for kernel in kernels)
    assert precision_summary(convolutions(kernels)) == {"f32": CONVOLUTIONS}


def test_the_float_precision_is_read_back(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        assert session.float_precision == "f32"


@pytest.mark.parametrize("threads", [1, 2])
def test_the_thread_count_is_honoured(artifact: Artifact, runtime: RuntimeName, threads: int) -> None:
    with open_session(artifact, runtime, SessionOptions(threads=threads)) as session:
        assert _thread_count(session, runtime) == threads


def test_without_a_thread_count_every_usable_core_is_used(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        assert _thread_count(session, runtime) == usable_cores()


def test_a_session_is_a_context_manager(artifact: Artifact, runtime: RuntimeName) -> None:
    session = open_session(artifact, runtime)
    with session as entered:
        assert entered is session


def test_a_runtime_describes_itself(runtime: RuntimeName) -> None:
    info = RUNTIMES[runtime].describe()
    assert info.name == runtime
    assert re.match(r"\d+\.\d+", info.version)
    assert info.devices


def test_an_artifact_for_another_runtime_is_refused_with_a_way_out(
    runtime: RuntimeName, tiny_fp32: Artifact, tiny_reference: Artifact
) -> None:
    other = tiny_fp32 if runtime == "pytorch" else tiny_reference
    with pytest.raises(ArtifactError) as caught:
        open_session(other, runtime)
    assert f"was made for {', '.join(other.manifest.runtimes)}, not for {runtime}" in caught.value.message
    assert "edge-latup export CHECKPOINT" in caught.value.hint


def test_a_missing_runtime_is_named_with_the_command_that_installs_it(
    artifact: Artifact, runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"edge_latup.runtimes.{runtime}.installed", lambda package: False)
    with pytest.raises(MissingDependencyError, match=f"runtime {runtime} is not installed") as caught:
        open_session(artifact, runtime)
    assert caught.value.exit_code == 3
    assert caught.value.hint.startswith("in edge-latup's folder: pip install -c constraints.txt '.[")


def test_a_runtime_that_is_there_but_broken_is_missing_too(
    artifact: Artifact, runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE[runtime], None)
    monkeypatch.setattr(f"edge_latup.runtimes.{runtime}.installed", lambda package: True)
    with pytest.raises(MissingDependencyError, match="cannot be imported") as caught:
        open_session(artifact, runtime)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("damage", ["cut", "other text", "empty"])
def test_a_damaged_model_file_is_an_artifact_error(artifact: Artifact, runtime: RuntimeName, tmp_path: Path, damage: str) -> None:
    folder = _copy(artifact, tmp_path / "copy")
    path = folder / artifact.model_path.name
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "other text": b"\x00\xff" * 5000, "empty": b""}[damage])
    with pytest.raises(ArtifactError, match=path.name):
        open_artifact(folder)
    # The runtime's own refusal, were the hash not checked first.
    with pytest.raises(ArtifactError) as caught:
        open_session(Artifact(folder=folder, manifest=artifact.manifest), runtime)
    assert str(path) in caught.value.message
    assert not re.search(r"Traceback|Exception from|\.(cpp|cc|h):\d|\n", caught.value.message), "a trace is no message"
    assert caught.value.hint


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_the_runtime_does_not_compute_in_is_refused(artifact: Artifact, runtime: RuntimeName, precision: Precision) -> None:
    """OpenVINO may compute in it: then the session says so. None silently runs another one."""
    options = SessionOptions(float_precision=precision)
    if runtime == "openvino" and precision in diagnose().openvino_precisions:
        with open_session(artifact, runtime, options) as session:
            assert session.float_precision == {"bf16": "bf16", "fp16": "f16"}[precision]
        return
    with pytest.raises(MissingDependencyError, match=precision) as caught:
        open_session(artifact, runtime, options)
    assert caught.value.hint


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"], indirect=True)
def test_where_the_size_is_free_it_is_a_multiple_of_the_divisor(runtime: RuntimeName, tmp_path: Path) -> None:
    with open_session(pointwise_artifact(tmp_path / "free"), runtime) as session:
        assert session.input_shape == (1, 3, -1, -1, -1)
        for side in (8, 24):
            assert session.infer(some_batch(side=side)).shape == (1, 4, side, side, side)
        with pytest.raises(InputError, match=r"multiples of 8, got float32 \(1, 3, 20, 20, 20\)"):
            session.infer(some_batch(side=20))


def test_an_audit_names_every_layer_that_multiplies(artifact: Artifact, runtime: RuntimeName) -> None:
    with open_session(artifact, runtime) as session:
        audit = session.audit()
    assert audit.runtime == runtime
    assert audit.input_shape == artifact.manifest.input_shape
    assert sum("Conv" in layer.operation for layer in audit.layers) == CONVOLUTIONS
    assert all(layer.macs > 0 and layer.kernel for layer in audit.layers)
    assert {(layer.declared, layer.executed, layer.time_share) for layer in audit.layers} == {("fp32", "fp32", None)}
    assert audit.summary.mismatched == 0
