"""The rules of TensorRT as tables: `inspect --rules tensorrt` and `quantize --runtime all` show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from edge_latup.cli.output import output
from edge_latup.errors import InputError
from edge_latup.runtimes.base import fixed_shape
from edge_latup.runtimes.tensorrt_limits import Asked

if TYPE_CHECKING:
    from edge_latup.quantize.tensorrt_rules import Finding

LIMIT_COLUMNS: Final = ("system", "TensorRT", "limit", "reason")
FUSIONS: Final = ("INT8 layer", "fused", "gives", "fusion")
NOT_QUANTIZED: Final = "not-quantized"


def show_rules(model: Path, rules: str, *, dla: bool, target: str | None = None, precision: str | None = None) -> None:
    """Check an ONNX file, or the ONNX artifact in a folder, against the rules of a runtime, and where named the limits of a target.

    Raises:
        InputError: there are no rules of that name, no such target or no such precision.
        ArtifactError: the file cannot be read, breaks a rule, or gives no engine on the target.
    """
    from edge_latup.artifact import open_artifact
    from edge_latup.quantize.tensorrt_rules import check_file, refuse_errors

    if rules != "tensorrt":
        raise InputError(f"there are no rules of {rules!r}", "use --rules tensorrt")
    if precision is not None and (target is None or precision not in get_args(Asked)):
        raise InputError(f"--precision {precision} is for --target, and one of {', '.join(get_args(Asked))}", "correct it, or leave it out")
    artifact = open_artifact(model) if model.is_dir() else None
    path = artifact.model_path if artifact else model
    findings = check_file(path, dla=dla)
    if artifact is not None and artifact.manifest.precision != "int8":
        findings = [finding for finding in findings if finding.rule != NOT_QUANTIZED]  # a float engine is what it is for
    show_findings(findings, f"{path}: TensorRT's rules")
    _show_fusions(path)
    told = [asdict(finding) for finding in findings]
    keeps = "" if findings else f"{path} keeps TensorRT's rules"
    if target is None:
        output.result(told, keeps)
    else:
        output.line(keeps)
        own = fixed_shape(artifact.manifest.input_shape, artifact.manifest.spec) if artifact else None
        _show_target(path, target, cast("Asked | None", precision), dla=dla, shape=own, told=told)
    refuse_errors(findings, str(path))


def _show_fusions(path: Path) -> None:
    """Each INT8 layer, whether a documented fusion applies to it, and what leaves it."""
    from edge_latup.quantize.tensorrt_fusion import fusions_of

    rows = [(own.layer, own.pattern, own.output, own.why_not or "applies") for own in fusions_of(path)]
    if rows:
        output.table(
            f"{path}: INT8 layers and the fusion NVIDIA documents; what an engine did, only its inspector tells", FUSIONS, rows, left=4
        )


def _show_target(
    path: Path, name: str, asked: Asked | None, *, dla: bool, shape: tuple[int, ...] | None, told: list[dict[str, Any]]
) -> None:
    """What each TensorRT generation of a target says to the file.

    Raises:
        ArtifactError: none of them takes it.
    """
    from edge_latup.quantize.tensorrt_fusion import fusions_of
    from edge_latup.targets.engine_limits import answers, refuse_everywhere
    from edge_latup.targets.profile import load_profile

    found = answers(path, load_profile(name), asked, dla=dla, shape=shape)
    rows = [(answer.system, answer.target.tensorrt, refused.key, refused.reason) for answer in found for refused in answer.refused]
    rows += [(answer.system, answer.target.tensorrt, "-", "nothing known stands against it") for answer in found if not answer.refused]
    output.table(
        f"{path} on {found[0].target.name}: limits, looked up and computed, nothing was built", LIMIT_COLUMNS, sorted(rows), left=4
    )
    remedies = (f"{refused.key}: {refused.instead} [{refused.source}]" for answer in found for refused in answer.refused)
    for line in dict.fromkeys(remedies):
        output.line(line)
    output.result(
        {
            "findings": told,
            "fusions": [asdict(own) for own in fusions_of(path)],
            "target": [{**asdict(answer), "takes_it": not answer.refused} for answer in found],
        }
    )
    refuse_everywhere(found, str(path))


def show_findings(findings: Sequence[Finding], title: str) -> None:
    """A table of findings, and below it each broken rule's remedy and source once."""
    if not findings:
        return
    rows = [(finding.severity, finding.rule, finding.node, finding.message) for finding in findings]
    output.table(title, ("severity", "rule", "node", "finding"), rows, left=4)
    nodes: dict[tuple[str, str, str], int] = defaultdict(int)
    for finding in findings:
        nodes[finding.rule, finding.remedy, finding.source] += 1
    for (rule, remedy, source), count in nodes.items():
        output.line(f"{rule} ({count}): {remedy} [{source}]")
