"""Whether a target's TensorRT would take a file, asked before anything is sent there: each generation, reasons, next best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.errors import ArtifactError, InputError
from edge_latup.runtimes.onnx_facts import ModelFacts, facts_of
from edge_latup.runtimes.tensorrt_limits import GIB, Asked, Refused, TargetFacts, refusals
from edge_latup.targets.profile import Profile

WIDEST: Final[tuple[tuple[str, Asked], ...]] = (("bfloat16", "bf16"), ("float16", "fp16"))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one system release of a target says to a file; `refused` is empty where nothing known stands against it."""

    target: TargetFacts
    system: str
    refused: tuple[Refused, ...]


def target_facts(profile: Profile, tensorrt: str, *, dla: bool = False) -> TargetFacts:
    """A profile with one of its TensorRT generations, in the plain values that the limits ask for."""
    return TargetFacts(
        name=profile.name, compute_capability=profile.compute_capability, tensorrt=tensorrt, unified=profile.unified_memory, dla=dla,
        memory_bytes=round(profile.memory_gib.value * GIB),
    )  # fmt: skip


def asked_of(model: ModelFacts) -> Asked:
    """The precision a file's own types ask for."""
    if any(name.startswith("float8") for name in model.types):
        return "fp8"
    return "int8" if model.quantized else next((asked for name, asked in WIDEST if name in model.types), "fp32")


def answers(
    path: Path, profile: Profile, asked: Asked | None = None, *, dla: bool = False, shape: tuple[int, ...] | None = None
) -> list[Answer]:
    """One answer for each generation of TensorRT that the target has.

    Args:
        path: ONNX file.
        profile: the target.
        asked: precision of the engine; the file's own unless given.
        dla: whether a Deep Learning Accelerator is asked for.
        shape: of the input, where the file leaves it free.

    Raises:
        ArtifactError: the file cannot be read.
        InputError: the target has no TensorRT.
    """
    if not profile.tensorrt:
        raise InputError(f"{profile.name} has no TensorRT", f"its runtimes: {', '.join(profile.runtimes)}")
    model = facts_of(path, shape)
    found = []
    for generation in profile.tensorrt:
        target = target_facts(profile, generation.tensorrt, dla=dla)
        found.append(Answer(target=target, system=generation.system, refused=tuple(refusals(model, target, asked or asked_of(model)))))
    return found


def refuse_everywhere(found: list[Answer], what: str) -> None:
    """Refuse a file that no generation of the target takes.

    Raises:
        ArtifactError: with the reason and the next best option of the generation that has the least against it.
    """
    best = min(found, key=lambda answer: len(answer.refused))
    if best.refused:
        first = best.refused[0]
        raise ArtifactError(
            f"{what} gives no engine on {best.target.name} ({best.system}, TensorRT {best.target.tensorrt}): {first.reason}"
            f" [{first.source}]",
            first.instead,
        )
