"""Which executed operation a layer of the file became: runtimes rename, fuse and reorder what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_latup.runtimes.audit import Audit, AuditedLayer

Kind = Literal["convolution", "transposed convolution", "dense"]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A layer as the file has it. `node`: its name there; `tensors`: its weights, bias and output, by name."""

    name: str
    node: str
    operation: str
    kind: Kind
    precision: str
    macs: int
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Executed:
    """An operation as the runtime runs it.

    nodes: names of the file's nodes it stands for. hints: names that point to a node less surely: tensors, derived names.
    kind: None where the operation by itself has no multiply-accumulates. microseconds: of one inference; None where not profiled.
    """

    nodes: frozenset[str]
    hints: frozenset[str]
    kind: Kind | None
    precision: str
    kernel: str
    microseconds: float | None = None


def match(declared: Sequence[Declared], executed: Sequence[Executed]) -> dict[str, int]:
    """The executed operation's index by layer's name: by node, then by hint, then by order where as many of a kind remain.

    A layer that none of these finds is missing.
    """
    found = _by_node(declared, executed)
    for layer in (layer for layer in declared if layer.name not in found):
        free = [index for index in _computing(executed) if index not in found.values()]
        names = {layer.node, *layer.tensors} - {""}
        if hinted := [index for index in free if executed[index].kind == layer.kind and names & executed[index].hints]:
            found[layer.name] = hinted[0]
    return found | _by_order([layer for layer in declared if layer.name not in found], executed, set(found.values()))


def _computing(executed: Sequence[Executed]) -> list[int]:
    return [index for index, operation in enumerate(executed) if operation.kind is not None]


def _by_node(declared: Sequence[Declared], executed: Sequence[Executed]) -> dict[str, int]:
    """Several layers may have become one operation; one that multiplies goes before one that only carries the name on."""
    places = {node: index for index, operation in enumerate(executed) for node in operation.nodes}
    places |= {node: index for index in _computing(executed) for node in executed[index].nodes}
    return {layer.name: places[layer.node] for layer in declared if layer.node and layer.node in places}


def _by_order(left: Sequence[Declared], executed: Sequence[Executed], used: set[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in dict.fromkeys(layer.kind for layer in left):
        layers = [layer for layer in left if layer.kind == kind]
        free = [index for index in _computing(executed) if executed[index].kind == kind and index not in used]
        if len(layers) == len(free):
            found |= {layer.name: index for layer, index in zip(layers, free, strict=True)}
    return found


def audited(runtime: str, input_shape: tuple[int, ...], declared: Sequence[Declared], executed: Sequence[Executed]) -> Audit:
    """The audit of declared layers and executed operations, their time shared out where all operations have one."""
    found = match(declared, executed)
    times = [operation.microseconds for operation in executed if operation.microseconds is not None]
    total = sum(times)
    shared = list(found.values())

    def layer(own: Declared) -> AuditedLayer:
        ran = executed[found[own.name]] if own.name in found else None
        time = ran.microseconds / total / shared.count(found[own.name]) if ran and ran.microseconds is not None and total else None
        return AuditedLayer(
            name=own.name, operation=own.operation, declared=own.precision, executed=ran.precision if ran else None,
            kernel=ran.kernel if ran else None, macs=own.macs, time_share=time,
        )  # fmt: skip

    layers = tuple(layer(own) for own in declared)
    mine = sum(value.time_share or 0.0 for value in layers)
    return Audit(
        runtime=runtime, input_shape=input_shape, layers=layers, milliseconds=total / 1000 if total else None,
        other_time_share=min(1.0, max(0.0, 1 - mine)) if total else None,
    )  # fmt: skip
