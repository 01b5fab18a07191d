"""The executed-kernel audit: what a file declares its layers to compute in, beside what the runtime ran them in.

Layers are those with multiply-accumulates: convolutions, transposed convolutions and matrix products. A file full of Q/DQ may run
no INT8 kernel at all, and nothing but reading back what was executed tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import Field

from edge_latup.manifest import AuditSummary, Mismatch
from edge_latup.records import Record

TOLERANCE: Final = 0.02
"""Share of the multiply-accumulates that may run in another precision than declared before a candidate counts as not what it says."""
NAMED: Final = 3
"""So many layers are named in a sentence."""
PRECISIONS: Final = {
    "f32": "fp32", "float": "fp32", "float32": "fp32", "f16": "fp16", "half": "fp16", "float16": "fp16", "bfloat16": "bf16",
    "i8": "int8", "u8": "int8", "uint8": "int8",
}  # fmt: skip
"""How runtimes call what `manifest.Precision` has one word for."""


def precision_name(name: str) -> str:
    """A runtime's word for a number type as `manifest.Precision` has it; other types keep their name."""
    return PRECISIONS.get(name.lower(), name.lower())


class AuditedLayer(Record):
    """One layer of the file, and the kernel that executed it."""

    name: str
    operation: str
    """As the file calls it."""
    declared: str
    """INT8 where the file quantizes both operands, else the precision of the artifact's float part."""
    executed: str | None
    """None where the runtime names no kernel for the layer."""
    kernel: str | None
    """The runtime's own name of the implementation."""
    macs: int = Field(ge=0)
    time_share: float | None = Field(None, ge=0, le=1)
    """Of all operations' time, what is fused into the layer included; None where nothing was profiled."""


class Audit(Record):
    """Every layer with multiply-accumulates, in the order of the file."""

    runtime: str
    input_shape: tuple[int, ...]
    layers: tuple[AuditedLayer, ...]
    milliseconds: float | None = None
    """Of all operations of one inference, mean over those that were profiled, the first included."""
    other_time_share: float | None = Field(None, ge=0, le=1)
    """Of operations without multiply-accumulates, such as norms, reorders and concatenations."""

    @property
    def macs(self) -> int:
        """Of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def summary(self) -> AuditSummary:
        """Shares by precision, and the layers that did not run as declared."""
        wrong = sorted((layer for layer in self.layers if layer.executed != layer.declared), key=lambda layer: -layer.macs)
        total: Counter[str] = Counter()
        for layer in self.layers:
            if layer.executed is not None:
                total[layer.executed] += layer.macs
        return AuditSummary(
            runtime=self.runtime,
            declared_int8=self._share(layer.macs for layer in self.layers if layer.declared == "int8"),
            executed_int8=self._share([total["int8"]]),
            executed={precision: self._share([macs]) for precision, macs in total.most_common() if macs},
            mismatched=self._share(layer.macs for layer in wrong),
            mismatches=tuple(
                Mismatch(layer=layer.name, declared=layer.declared, executed=layer.executed, macs=self._share([layer.macs]))
                for layer in wrong
            ),
        )

    def _share(self, macs: Iterable[int]) -> float:
        return sum(macs) / self.macs if self.macs else 0.0


def sentence(summary: AuditSummary) -> str:
    """The summary in words: "declared INT8 97.1 % of MACs, executed INT8 94.0 %; 2 layers declared int8 ran in fp32: ..."."""
    if summary.declared_int8 or summary.executed_int8:
        shares = f"declared INT8 {_percent(summary.declared_int8)} of MACs, executed INT8 {_percent(summary.executed_int8)}"
    else:
        shares = f"executed {', '.join(f'{name} {_percent(share)}' for name, share in summary.executed.items()) or 'nothing'} of MACs"
    kinds = dict.fromkeys((wrong.declared, wrong.executed) for wrong in summary.mismatches)
    return "; ".join([shares, *(_group(summary.mismatches, declared, executed) for declared, executed in kinds)])


def _group(mismatches: Sequence[Mismatch], declared: str, executed: str | None) -> str:
    names = [wrong.layer for wrong in mismatches if (wrong.declared, wrong.executed) == (declared, executed)]
    count = f"{len(names)} layer{'s' if len(names) > 1 else ''} declared {declared}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    fate = "without a kernel that the runtime names" if executed is None else f"ran in {executed}"
    return f"{count} {fate}: {', '.join(names[:NAMED])}{more}"


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def shortfall(summary: AuditSummary) -> str | None:
    """The sentence where more than `TOLERANCE` of the MACs ran in another precision than declared, else None."""
    return sentence(summary) if summary.mismatched > TOLERANCE else None
