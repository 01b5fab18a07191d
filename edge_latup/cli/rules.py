"""The rules of TensorRT as tables: `inspect --rules tensorrt` and `quantize --runtime all` show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.quantize.tensorrt_rules import Finding


def show_rules(model: Path, rules: str, *, dla: bool) -> None:
    """Check an ONNX file, or the ONNX artifact in a folder, against the rules of a runtime.

    Raises:
        InputError: there are no rules of that name.
        ArtifactError: the file cannot be read, or breaks a rule.
    """
    from edge_latup.artifact import open_artifact
    from edge_latup.quantize.tensorrt_rules import check_file, refuse_errors

    if rules != "tensorrt":
        raise InputError(f"there are no rules of {rules!r}", "use --rules tensorrt")
    path = open_artifact(model).model_path if model.is_dir() else model
    findings = check_file(path, dla=dla)
    show_findings(findings, f"{path}: TensorRT's rules")
    output.result([asdict(finding) for finding in findings], "" if findings else f"{path} keeps TensorRT's rules")
    refuse_errors(findings, str(path))


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
