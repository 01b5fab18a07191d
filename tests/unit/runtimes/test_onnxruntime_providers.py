"""Execution providers: asked for by name, refused where they are not or did not start, and never silently the CPU's.

Only the CPU's is installed here: what needs a GPU is tested on doubles of the session, and was not executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
import pytest
from command import Command
from tiny_models import some_batch

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError, MissingDependencyError
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.onnxruntime import OnnxRuntimeSession
from edge_latup.runtimes.onnxruntime_audit import executed_operations
from edge_latup.runtimes.onnxruntime_providers import (
    CPU,
    Choice,
    alarm,
    assigned_nodes,
    choice_of,
    provider_list,
    refuse_silent_cpu,
    summary,
)

CUDA, TRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@dataclass
class Node:
    name: str
    op_type: str
    domain: str = ""


@dataclass
class Part:
    """As `OrtEpAssignedSubgraph`."""

    ep_name: str
    nodes: list[Node] = field(default_factory=list)

    def get_nodes(self) -> list[Node]:
        return self.nodes


class Assigned:
    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def get_provider_graph_assignment_info(self) -> list[Part]:
        return list(self._parts)


class OlderSession:
    """ONNX Runtime before it could tell."""


def test_the_real_session_tells_who_was_given_which_node(tiny_fp32: Artifact) -> None:
    import onnx

    nodes = {node.name for node in onnx.load(tiny_fp32.model_path).graph.node if node.op_type in ("Conv", "ConvTranspose")}
    with open_session(tiny_fp32, "onnxruntime", SessionOptions(runtime_options={"provider": "cpu"})) as session:
        assert isinstance(session, OnnxRuntimeSession)
        assert session.assigned is not None
        assert nodes <= session.assigned.keys()
        assert set(session.assigned.values()) == {CPU}
        assert session.float_precision == "f32"
        session.infer(some_batch())


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_provider_that_is_not_built_in_is_refused(tiny_fp32: Artifact, provider: str, cli: Command) -> None:
    with pytest.raises(MissingDependencyError, match="this ONNX Runtime has no .*ExecutionProvider, only ") as caught:
        open_session(tiny_fp32, "onnxruntime", SessionOptions(runtime_options={"provider": provider}))
    assert "onnxruntime-gpu" in caught.value.hint
    done = cli("inspect", tiny_fp32.folder, "--audit", "--runtime", "onnxruntime", "--provider", provider)
    assert (done.code, done.out) == (3, "")


@pytest.mark.parametrize(
    ("given", "message"),
    [({"provider": "rocm"}, "no provider 'rocm'"), ({"device": "0"}, "no option 'device'"), ({"tf32": "maybe"}, "tf32 cannot be 'maybe'")],
)
def test_unknown_options_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choice_of(given)


def test_the_cpu_comes_last_and_tf32_is_off_unless_asked_for() -> None:
    every = [TRT, CUDA, CPU]
    assert provider_list(Choice(), every) == [CPU]
    assert provider_list(Choice(provider="cuda"), every) == [(CUDA, {"use_tf32": "0"}), CPU]
    assert provider_list(choice_of({"provider": "tensorrt", "tf32": "true"}), every) == [TRT, (CUDA, {"use_tf32": "1"}), CPU]
    assert provider_list(Choice(provider="tensorrt"), [TRT, CPU]) == [TRT, CPU]


def test_a_provider_that_did_not_start_is_not_taken_for_running() -> None:
    refuse_silent_cpu(Choice(), [CPU])
    refuse_silent_cpu(Choice(provider="cuda"), [CUDA, CPU])
    with pytest.raises(MissingDependencyError, match=f"{CUDA} did not start, and ONNX Runtime went on with {CPU}"):
        refuse_silent_cpu(Choice(provider="cuda"), [CPU])


def test_the_alarm_names_what_fell_to_the_cpu() -> None:
    convolutions = [Node(f"enc{index}", "Conv") for index in range(4)]
    session = Assigned(Part(CUDA, [Node("dec", "Conv")]), Part(CPU, [*convolutions, Node("shape", "Shape")]))
    with pytest.raises(MissingDependencyError, match="4 nodes that multiply were left to the CPU: enc0, enc1, enc2 and 1 more") as caught:
        alarm(session, Choice(provider="cuda"))  # type: ignore[arg-type]
    assert "fallback=true" in caught.value.hint
    accepted = alarm(session, Choice(provider="cuda", fallback=True))  # type: ignore[arg-type]
    assert accepted is not None
    assert (accepted["dec"], accepted["enc0"]) == (CUDA, CPU)
    assert summary(accepted) == f"{CPU} 5 nodes, {CUDA} 1 nodes"


def test_shapes_on_the_cpu_are_no_alarm() -> None:
    session = Assigned(Part(CUDA, [Node("dec", "Conv")]), Part(CPU, [Node("shape", "Shape")]))
    assert alarm(session, Choice(provider="cuda")) == {"dec": CUDA, "shape": CPU}  # type: ignore[arg-type]


def test_an_older_onnx_runtime_that_cannot_tell_is_said_not_to() -> None:
    assert assigned_nodes(OlderSession()) is None  # type: ignore[arg-type]
    assert alarm(OlderSession(), Choice(provider="cuda")) is None  # type: ignore[arg-type]


def test_the_audit_names_the_provider_before_the_kernel(tmp_path: Path) -> None:
    from onnx import helper
    from small_graphs import drawn, model_of

    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"], name="enc")], {"w": drawn(0, 4, 3, 1, 1, 1)}, (1, 3, 4, 4, 4))
    assert [executed.kernel for executed in executed_operations(model.graph, None, {"enc": CUDA})] == ["CUDA: Conv"]
    assert [executed.kernel for executed in executed_operations(model.graph, None, {"enc": CPU})] == ["Conv"]
