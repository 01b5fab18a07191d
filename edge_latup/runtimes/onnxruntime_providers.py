"""ONNX Runtime's execution providers: which one is asked for, who was given which node, and an alarm where the CPU got what multiplies.

The CUDA and TensorRT providers were not executed by this project's tests, which have the CPU's only and test the rest on doubles.
Sources: onnxruntime.ai/docs: CUDA Execution Provider (use_tf32), TensorRT Execution Provider; microsoft/onnxruntime#20532 (a convolution
that fell to the CPU unseen).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import InputError, MissingDependencyError
from edge_latup.runtimes.onnx_audit import KINDS

if TYPE_CHECKING:
    import onnxruntime as ort

CPU: Final = "CPUExecutionProvider"
PROVIDERS: Final[dict[str, tuple[str, ...]]] = {
    "cpu": (), "cuda": ("CUDAExecutionProvider",), "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}  # fmt: skip
"""Option -> ONNX Runtime's names, best first; the CPU's always comes last, for what the others have no kernel for."""
RECORD_ASSIGNMENT: Final = "session.record_ep_graph_assignment_info"
SWITCH: Final = {"true": True, "false": False}
INSTALL: Final = (
    "pip install onnxruntime-gpu in place of onnxruntime, with its CUDA and cuDNN; on JetPack: the wheel of NVIDIA's Jetson AI Lab"
)
NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Who is to run the graph.

    tf32: let the GPU multiply FP32 with 10 bits of mantissa, which is ONNX Runtime's own default and not ours.
    fallback: accept that the CPU runs nodes that multiply.
    """

    provider: str = "cpu"
    tf32: bool = False
    fallback: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """ONNX Runtime's names, without the CPU's."""
        return PROVIDERS[self.provider]


def choice_of(given: Mapping[str, str]) -> Choice:
    """The choice that a session's runtime options state: provider, tf32, fallback.

    Raises:
        InputError: there is no such option or value.
    """
    if unknown := sorted(given.keys() - {"provider", "tf32", "fallback"}):
        raise InputError(f"ONNX Runtime has no option {unknown[0]!r}", "its options: provider, tf32, fallback")
    provider = given.get("provider", "cpu")
    if provider not in PROVIDERS:
        raise InputError(f"ONNX Runtime has no provider {provider!r}", f"use one of: {', '.join(PROVIDERS)}")
    switches = {name: given.get(name, "false").lower() for name in ("tf32", "fallback")}
    for name, value in switches.items():
        if value not in SWITCH:
            raise InputError(f"{name} cannot be {value!r}", "use true or false")
    return Choice(provider=provider, **{name: SWITCH[value] for name, value in switches.items()})


def provider_list(choice: Choice, available: Sequence[str]) -> list[Any]:
    """What `InferenceSession` takes as `providers`.

    Raises:
        MissingDependencyError: this build of ONNX Runtime does not have the provider.
    """
    if choice.names and choice.names[0] not in available:
        raise MissingDependencyError(f"this ONNX Runtime has no {choice.names[0]}, only {', '.join(available)}", INSTALL)
    # What the provider cannot do CUDA may; where CUDA's is not built in, the CPU's.
    chosen = [name for name in choice.names if name in available]
    return [*((name, {"use_tf32": str(int(choice.tf32))}) if name.startswith("CUDA") else name for name in chosen), CPU]


def refuse_silent_cpu(choice: Choice, active: Sequence[str]) -> None:
    """ONNX Runtime goes on with the CPU where a provider does not start, and only prints that.

    Raises:
        MissingDependencyError: it did.
    """
    if choice.names and choice.names[0] not in active:
        raise MissingDependencyError(
            f"{choice.names[0]} did not start, and ONNX Runtime went on with {', '.join(active)}",
            "check CUDA and cuDNN: their versions must be those this ONNX Runtime was built for; and the GPU, with nvidia-smi",
        )


def assigned_nodes(session: ort.InferenceSession) -> dict[str, str] | None:
    """Node of the file -> the provider it was given to; None where this ONNX Runtime cannot tell."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    return {node.name: part.ep_name for part in ask() for node in part.get_nodes()}


def alarm(session: ort.InferenceSession, choice: Choice) -> dict[str, str] | None:
    """`assigned_nodes`, once no node that multiplies was left to the CPU, unless that is accepted.

    Raises:
        MissingDependencyError: some were; with their names.
    """
    told = assigned_nodes(session)
    if not choice.names or choice.fallback or told is None:
        return told
    parts = session.get_provider_graph_assignment_info()
    left = [node.name or node.op_type for part in parts if part.ep_name == CPU for node in part.get_nodes() if node.op_type in KINDS]
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        raise MissingDependencyError(
            f"{len(left)} nodes that multiply were left to the CPU: {', '.join(left[:NAMED])}{more}",
            "use --runtime tensorrt, or --runtime openvino on the CPU; to accept it set the runtime option fallback=true",
        )
    return told


def summary(assigned: Mapping[str, str]) -> str:
    """Who ran how many nodes, in words."""
    return ", ".join(f"{name} {count} nodes" for name, count in Counter(assigned.values()).most_common()) or "no nodes"
