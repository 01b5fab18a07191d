"""`edge-latup inspect --audit`: what a file declares beside what a runtime executes, as a table and a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.cli.options import parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.runtimes.audit import Audit, AuditedLayer

COLUMNS: Final = ("layer", "declared", "executed", "kernel", "MAC", "MAC %", "time %")
MISSING: Final = "\N{EN DASH}"


def show_audit(folder: Path, size: str | None, runtime: str | None, *, threads: int, profile: bool, provider: str | None = None) -> None:
    """Print the audit of the artifact in `folder`.

    Raises:
        InputError: a size is given: an audit is of what the artifact's own size compiles to.
        EdgeLatupError: the artifact or the runtime refuses.
    """
    from edge_latup.artifact import open_artifact
    from edge_latup.runtimes.audit import sentence, shortfall
    from edge_latup.segmentation.kernels import audit_artifact

    if size is not None:
        raise InputError("--size is not for --audit", "leave it out: what is audited is the artifact's own size")
    named = None if runtime is None else parse_runtime(runtime)
    given = {} if provider is None else {"provider": provider}
    audit = audit_artifact(
        open_artifact(folder), named, threads=threads, profile=profile, runtime_options=given, progress=output.note
    )  # fmt: skip
    summary, shape = audit.summary, "x".join(map(str, audit.input_shape))
    output.table(f"{folder.name} on {audit.runtime}, input {shape}", COLUMNS, [_row(audit, layer) for layer in audit.layers], left=4)
    output.line(sentence(summary))
    if audit.other_time_share is not None and audit.milliseconds is not None:
        rest = f"{100 * audit.other_time_share:.1f} %"
        output.line(f"profiled: {audit.milliseconds:,.1f} ms in all operations of one inference, {rest} of it in those without MACs")
    if shortfall(summary) is not None:
        output.warning(f"{folder} does not run what it declares: {shortfall(summary)}")
    output.result({**audit.model_dump(mode="json"), "summary": summary.model_dump(mode="json"), "text": sentence(summary)})


def _row(audit: Audit, layer: AuditedLayer) -> list[str]:
    time = MISSING if layer.time_share is None else f"{100 * layer.time_share:.1f}"
    share = f"{100 * layer.macs / audit.macs:.1f}" if audit.macs else MISSING
    return [layer.name, layer.declared, layer.executed or MISSING, layer.kernel or MISSING, f"{layer.macs:,}", share, time]
